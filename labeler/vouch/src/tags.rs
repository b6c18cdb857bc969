//! Tag lists (RFC 6376 §3.2): of signatures and of keys.

use data_encoding::BASE64;

/// A key or signature with more is nobody's honest one.
const TAGS_MAX: usize = 32;

/// Names and values, in order, with the space around them taken off.
pub(crate) struct Tags<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Tags<'a> {
    /// Or what is wrong with the list. A tag that stands twice makes the whole list void.
    pub(crate) fn read(text: &'a str) -> Result<Self, &'static str> {
        let mut tags: Vec<(&str, &str)> = Vec::new();
        let mut parts = text.split(';').peekable();
        while let Some(part) = parts.next() {
            if part.trim().is_empty() && parts.peek().is_none() {
                break;
            }
            let (name, value) = part.split_once('=').ok_or("a tag has no value")?;
            let name = name.trim();
            let is_name = name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_');
            if !is_name || !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
                return Err("a tag has no name");
            }
            if tags.iter().any(|(known, _)| *known == name) {
                return Err("a tag stands twice");
            }
            if tags.len() == TAGS_MAX {
                return Err("too many tags");
            }
            tags.push((name, value.trim()));
        }
        Ok(Self(tags))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// A list with colons between.
    pub(crate) fn list(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.get(name).into_iter().flat_map(|value| value.split(':')).map(str::trim).filter(|item| !item.is_empty())
    }

    /// Folded as it may be. None: absent, empty, or not base64.
    pub(crate) fn base64(&self, name: &str) -> Option<Vec<u8>> {
        let bare: String = self.get(name)?.chars().filter(|it| !it.is_ascii_whitespace()).collect();
        BASE64.decode(bare.as_bytes()).ok().filter(|octets| !octets.is_empty())
    }

    /// Of at most twelve digits: the year 30000 in seconds, a terabyte in octets. The error is for what is no such number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let digits = (1..=12).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        number.map(Some).ok_or_else(|| format!("`{name}=` is not a number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_list_has_one_reading_or_none() {
        let tags = Tags::read(" v=1; h = From : To ;\r\n b= YQ =\r\n = ;t=12;").unwrap();
        assert_eq!((tags.get("v"), tags.get("x")), (Some("1"), None));
        assert_eq!(tags.list("h").collect::<Vec<_>>(), ["From", "To"]);
        assert_eq!(tags.base64("b"), Some(b"a".to_vec()));
        assert_eq!((tags.number("t"), tags.number("x")), (Ok(Some(12)), Ok(None)));
        for number in ["t=", "t=-1", "t=1x", "t=1000000000000", "t=+1", "t=1 2"] {
            assert!(Tags::read(number).unwrap().number("t").is_err(), "{number}");
        }
        for wrong in ["d=a;d=b", "v", "v=1;;d=a", "=1", "v=1; ;d=a", "1v=1", "v v=1"] {
            assert!(Tags::read(wrong).is_err(), "{wrong}");
        }
    }
}
