//! What is wrong with a configuration: file, line, key, and what would be right.
//!
//! Lines are found in a second reading of the file that keeps the place of every key and value, so the settings
//! themselves stay plain types.

use std::{fmt, ops::Range, path::PathBuf};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Why a configuration cannot be used. The program prints it and exits 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as it was named.
    pub file: PathBuf,
    /// Everything found wrong, in the order of the file.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Problem {
    /// Counted from 1; none when it concerns the file as a whole.
    pub line: Option<usize>,
    /// With its table: `egress.port`. Empty for a syntax error.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, Problem { line, key, message }) in self.problems.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some(line) = line {
                write!(f, ":{line}")?;
            }
            if !key.is_empty() {
                write!(f, ": key `{key}`")?;
            }
            write!(f, ": {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The file's text with the place of everything in it.
pub(crate) struct Source<'a> {
    text: &'a str,
    root: Spanned<DeTable<'a>>,
}

impl<'a> Source<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Problem> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Source { text, root }),
            Err(error) => Err(Problem {
                line: error.span().map(|span| line(text, span.start)),
                key: String::new(),
                message: one_line(error.message()),
            }),
        }
    }

    /// A problem with what stands at `path`, such as `listen.1.address`. When that is absent: at the table that lacks it.
    pub(crate) fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        let named: Vec<_> = path.split('.').filter(|part| part.parse::<usize>().is_err()).collect();
        Problem { line: self.find(path).map(|at| line(self.text, at)), key: named.join("."), message: message.into() }
    }

    /// What serde found, with the key that stands around the place it names.
    pub(crate) fn refusal(&self, error: &toml::de::Error) -> Problem {
        let message = one_line(error.message());
        // What the root table lacks has no place.
        let span = error.span().filter(|span| *span != self.root.span());
        let around = span.as_ref().map(|span| self.around(span)).unwrap_or_default();
        let join = |field: &str| if around.is_empty() { field.to_owned() } else { format!("{around}.{field}") };
        let (key, message) = if let Some(rest) = message.strip_prefix("missing field ") {
            let field = rest.trim_matches('`');
            (join(field), "is missing and has no default".to_owned())
        } else if let Some(rest) = message.strip_prefix("unknown field ") {
            let expected = rest.split_once("expected ").map_or("nothing", |(_, expected)| expected);
            let expected = expected.strip_prefix("one of ").unwrap_or(expected);
            (around, format!("no such setting, or it does not work yet; this table knows {expected}"))
        } else {
            (around, message)
        };
        let line = span.map(|span| line(self.text, span.start));
        Problem { line, key, message }
    }

    /// The line where `path` begins.
    pub(crate) fn line_of(&self, path: &str) -> Option<usize> {
        self.find(path).map(|at| line(self.text, at))
    }

    /// Where `path` begins, or the deepest part of it that is there.
    fn find(&self, path: &str) -> Option<usize> {
        let mut found = None;
        let mut table = Some(self.root.get_ref());
        let mut array: Option<&toml::de::DeArray<'_>> = None;
        for part in path.split('.') {
            let value = match (table, array, part.parse::<usize>()) {
                (_, Some(array), Ok(nth)) => array.get(nth),
                (Some(table), _, _) => table.get_key_value(part).map(|(key, value)| {
                    // `[[pool]]` opens many: only their values have places of their own.
                    if !matches!(value.get_ref(), DeValue::Array(_)) {
                        found = Some(key.span().start);
                    }
                    value
                }),
                _ => None,
            };
            let Some(value) = value else { break };
            if found.is_none() || part.parse::<usize>().is_ok() || !matches!(value.get_ref(), DeValue::Table(_)) {
                found = Some(value.span().start);
            }
            table = None;
            array = None;
            match value.get_ref() {
                DeValue::Table(inner) => table = Some(inner),
                DeValue::Array(inner) => array = Some(inner),
                _ => {}
            }
        }
        found
    }

    /// The path of the innermost key whose name or value covers `span`.
    fn around(&self, span: &Range<usize>) -> String {
        let mut path = Vec::new();
        descend(self.root.get_ref(), span, &mut path);
        path.join(".")
    }
}

fn descend(table: &DeTable<'_>, span: &Range<usize>, path: &mut Vec<String>) {
    for (key, value) in table {
        let named = covers(&key.span(), span);
        if !named && !reaches(value, span) {
            continue;
        }
        path.push(key.get_ref().to_string());
        if !named {
            match value.get_ref() {
                DeValue::Table(inner) => descend(inner, span, path),
                DeValue::Array(items) => {
                    for item in items.iter() {
                        if let DeValue::Table(inner) = item.get_ref()
                            && reaches(item, span)
                        {
                            descend(inner, span, path);
                        }
                    }
                }
                _ => {}
            }
        }
        return;
    }
}

/// A table's own span is its header only, so its contents are asked too.
fn reaches(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    covers(&value.span(), span)
        || match value.get_ref() {
            DeValue::Table(inner) => inner.iter().any(|(key, value)| covers(&key.span(), span) || reaches(value, span)),
            DeValue::Array(items) => items.iter().any(|item| reaches(item, span)),
            _ => false,
        }
}

fn covers(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end && !outer.is_empty()
}

fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|octet| *octet == b'\n').count()
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}
