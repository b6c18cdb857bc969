//! Transcripts: reading them, and comparing what was seen with what they say.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::Path;

/// A dialogue; each line is a kind (`C:`, `S:`, `!` …) and its text.
pub struct Transcript {
    pub name: String,
    pub lines: Vec<(String, String)>,
}

impl Transcript {
    pub fn parse(name: &str, text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let split = |line: &str| {
            let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
            let known = ["C:", "S:", "R:", "M:", "P:", "F:", "T:", "!", "S!", "C!"].contains(&kind);
            assert!(known, "{name}: cannot read the line {line:?}");
            (kind.to_owned(), text.to_owned())
        };
        Self { name: name.to_owned(), lines: lines.map(split).collect() }
    }

    /// The directives of a kind, in words.
    pub fn words(&self, kind: char) -> Vec<Box<[&str]>> {
        let directives = self.lines.iter().filter(|(other, _)| *other == kind.to_string());
        directives.map(|(_, text)| text.split_whitespace().collect()).collect()
    }

    pub fn expected(&self, kinds: &[&str]) -> Vec<String> {
        self.lines.iter().filter(|(kind, _)| kinds.contains(&&**kind)).map(|(kind, text)| format!("{kind} {text}")).collect()
    }
}

/// Every transcript of a folder; the folder is never empty.
pub fn transcripts(folder: &str) -> Vec<Transcript> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| Transcript::parse(&name(path), &std::fs::read_to_string(path).unwrap())).collect()
}

pub fn compare(name: &str, how: &str, expected: &[String], seen: &[String]) {
    let fits = |expected: &String, seen: &String| match expected.strip_suffix("...") {
        Some(beginning) => seen.starts_with(beginning),
        None => seen.trim_end() == expected.trim_end(),
    };
    for (number, expected) in expected.iter().enumerate() {
        match seen.get(number) {
            Some(seen) if fits(expected, seen) => {}
            other => {
                panic!("{name}, {how}: expected\n  {expected}\nseen\n  {other:?}\nall that was seen:\n  {}", seen.join("\n  "))
            }
        }
    }
    assert!(expected.len() == seen.len(), "{name}, {how}: seen beyond the transcript: {:?}", &seen[expected.len()..]);
}

pub fn unescape(text: &str) -> Vec<u8> {
    let mut octets = vec![];
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(b'x') => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other.unwrap(),
            },
            octet => octet,
        });
    }
    octets
}

pub fn escape(octets: &[u8]) -> String {
    let escaped = octets.escape_ascii().to_string();
    escaped.replace("\\'", "'").replace("\\\"", "\"").replace("\\x00", "\\0")
}
