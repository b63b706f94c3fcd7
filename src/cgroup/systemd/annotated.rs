//! Properties of a scope that the specification asks for: annotations `org.systemd.property.NAME`, as runc reads them
//! (runc's docs/systemd-properties.md). Their values are in GVariant's text format (docs.gtk.org/glib, "GVariant Text
//! Format"): booleans, numbers, strings, and arrays of these.

use super::basic::Basic;
use super::wire::Value;
use crate::error::{invalid, Result};
use crate::spec::annotation;
use std::collections::BTreeMap;

/// With its name.
pub(super) type Named = (String, Value);

/// What makes the scope the container's. With another value it would take other processes, or lose its own.
const OWN: [&str; 4] = ["Controller", "Delegate", "PIDs", "Slice"];

pub(super) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<Named>> {
    let named = annotations
        .iter()
        .filter_map(|(key, text)| Some((key, key.strip_prefix(annotation::SYSTEMD_PROPERTY)?, text)));
    named
        .map(|(key, name, text)| {
            property(name, text).map_err(|why| invalid(format!("annotations[{key:?}]: {why}")))
        })
        .collect()
}

fn property(name: &str, text: &str) -> Result<Named, String> {
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err("the name of a property is three or more letters".into());
    }
    if OWN.contains(&name) {
        return Err(format!("{name} is the runtime's own"));
    }
    let mut parser = Parser { rest: text.trim_start() };
    let value = parser.value()?;
    if !parser.rest.trim().is_empty() {
        return Err(format!("{:?} follows the value", parser.rest));
    }
    // Documented with the one suffix, and known on the bus by the other.
    match name.strip_suffix("Sec").filter(|stem| stem.ends_with(|last: char| last.is_ascii_lowercase())) {
        Some(stem) => Ok((format!("{stem}USec"), Value::Number(microseconds(&value)?))),
        None => Ok((name.to_owned(), value)),
    }
}

fn microseconds(value: &Value) -> Result<u64, String> {
    let wrong = || "must be a number of seconds from 0".to_owned();
    let Value::Basic(value) = value else { return Err(wrong()) };
    if let Basic::Double(seconds) = value {
        let microseconds = seconds * 1e6;
        // Both bounds are exact.
        let fits = (0.0..18_446_744_073_709_551_616.0).contains(&microseconds);
        return if fits { Ok(microseconds as u64) } else { Err(wrong()) };
    }
    value.integer().and_then(|seconds| u64::try_from(seconds.checked_mul(1_000_000)?).ok()).ok_or_else(wrong)
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn value(&mut self) -> Result<Value, String> {
        match self.of_type()? {
            Some(Type::Basic(kind)) => self.basic(Some(kind)).map(Value::Basic),
            Some(Type::Array(kind)) => self.array(Some(kind)),
            None if self.rest.starts_with('[') => self.array(None),
            None => self.basic(None).map(Value::Basic),
        }
    }

    /// A type before the value: `uint64` or `@as`.
    fn of_type(&mut self) -> Result<Option<Type>, String> {
        if let Some(rest) = self.rest.strip_prefix('@') {
            let (signature, rest) = rest.split_once(char::is_whitespace).ok_or("a type without a value")?;
            self.rest = rest.trim_start();
            let unknown = || format!("values of type {signature:?} are not supported");
            let element = signature.strip_prefix('a');
            let mut letters = element.unwrap_or(signature).chars();
            let kind = letters.next().filter(|_| letters.as_str().is_empty()).ok_or_else(unknown)?;
            if Basic::parse(kind, "").is_none() {
                return Err(unknown());
            }
            return Ok(Some(if element.is_some() { Type::Array(kind) } else { Type::Basic(kind) }));
        }
        let word = self.rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let Some((_, kind)) = KEYWORDS.iter().find(|(keyword, _)| *keyword == word) else { return Ok(None) };
        self.rest = self.rest.get(word.len()..).unwrap_or_default().trim_start();
        Ok(Some(Type::Basic(*kind)))
    }

    fn array(&mut self, kind: Option<char>) -> Result<Value, String> {
        self.rest = self.rest.strip_prefix('[').ok_or("an array begins with [")?.trim_start();
        let mut elements: Vec<Basic> = Vec::new();
        let mut kind = kind;
        while !self.rest.starts_with(']') {
            if !elements.is_empty() {
                self.rest = self.rest.strip_prefix(',').ok_or("a comma or ] is missing")?.trim_start();
            }
            let own = match self.of_type()? {
                None => kind,
                Some(Type::Basic(own)) if kind.is_none_or(|kind| kind == own) => Some(own),
                Some(_) => return Err("the elements of an array have one type".into()),
            };
            let element = self.basic(own)?;
            if *kind.get_or_insert(element.kind()) != element.kind() {
                return Err("the elements of an array have one type".into());
            }
            elements.push(element);
            self.rest = self.rest.trim_start();
        }
        self.rest = self.rest.get(1..).unwrap_or_default();
        let kind = kind.ok_or("the type of an empty array is not known: @as []")?;
        Ok(Value::Array(kind, elements))
    }

    fn basic(&mut self, kind: Option<char>) -> Result<Basic, String> {
        if self.rest.starts_with(['\'', '"']) {
            let text = self.text()?;
            return match kind {
                None | Some('s') => Ok(Basic::Text(text)),
                Some(kind) => Err(format!("a string where the type is {kind:?}")),
            };
        }
        let end =
            self.rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | ']')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        let kind = kind.unwrap_or_else(|| match word {
            "true" | "false" => 'b',
            _ if is_float(word) => 'd',
            _ => 'i',
        });
        Basic::parse(kind, word).flatten().ok_or_else(|| format!("{word:?} is no value of type {kind:?}"))
    }

    /// A string in quotes, with the escapes of C and of Unicode.
    fn text(&mut self) -> Result<String, String> {
        let mut letters = self.rest.chars();
        let quote = letters.next();
        let mut text = String::new();
        loop {
            match letters.next() {
                None => return Err("a string does not end".into()),
                letter if letter == quote => break,
                Some('\\') => {
                    let letter = letters.next().ok_or("a string does not end")?;
                    let digits = match letter {
                        'u' => 4,
                        'U' => 8,
                        _ => 0,
                    };
                    text.push(match letter {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'a' => '\x07',
                        'b' => '\x08',
                        'f' => '\x0c',
                        'v' => '\x0b',
                        'u' | 'U' => {
                            let number: String = letters.by_ref().take(digits).collect();
                            let number =
                                u32::from_str_radix(&number, 16).ok().filter(|_| number.len() == digits);
                            number.and_then(char::from_u32).ok_or("an escape is no character")?
                        }
                        other => other,
                    });
                }
                Some('\0') => return Err("a string contains a NUL".into()),
                Some(letter) => text.push(letter),
            }
        }
        if text.contains('\0') {
            return Err("a string contains a NUL".into());
        }
        self.rest = letters.as_str();
        Ok(text)
    }
}

enum Type {
    Basic(char),
    Array(char),
}

const KEYWORDS: [(&str, char); 10] = [
    ("boolean", 'b'),
    ("byte", 'y'),
    ("int16", 'n'),
    ("uint16", 'q'),
    ("int32", 'i'),
    ("uint32", 'u'),
    ("int64", 'x'),
    ("uint64", 't'),
    ("double", 'd'),
    ("string", 's'),
];

fn is_float(word: &str) -> bool {
    let hexadecimal = word.trim_start_matches(['+', '-']).starts_with("0x");
    !hexadecimal && word.contains(['.', 'e', 'E'])
        || ["inf", "nan"].contains(&word.trim_start_matches(['+', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, text: &str) -> Result<Named, String> {
        property(name, text)
    }

    fn value(text: &str) -> Value {
        one("Name", text).unwrap().1
    }

    #[test]
    fn values_have_the_type_that_is_written_or_that_of_the_literal() {
        for (text, expected) in [
            ("true", Basic::Flag(true)),
            ("boolean false", Basic::Flag(false)),
            ("7", Basic::Int32(7)),
            ("-0x10", Basic::Int32(-16)),
            ("010", Basic::Int32(8)),
            ("byte 0xff", Basic::Byte(255)),
            ("int16 -7", Basic::Int16(-7)),
            ("uint16 7", Basic::Uint16(7)),
            ("@u 7", Basic::Uint32(7)),
            ("int64 -7", Basic::Int64(-7)),
            (" uint64 123456789 ", Basic::Uint64(123_456_789)),
            ("1.5", Basic::Double(1.5)),
            ("double 2", Basic::Double(2.0)),
            ("'a \\'b\\' \\u00e4'", Basic::Text("a 'b' ä".into())),
            ("\"it's\"", Basic::Text("it's".into())),
        ] {
            assert_eq!(value(text), Value::Basic(expected), "{text}");
        }
        let texts = ["a", "b,]"].map(|text| Basic::Text(text.into())).to_vec();
        assert_eq!(value("['a', 'b,]']"), Value::Array('s', texts));
        assert_eq!(value("[uint64 1, 2]"), Value::Array('t', vec![Basic::Uint64(1), Basic::Uint64(2)]));
        assert_eq!(value("@as []"), Value::Array('s', Vec::new()));
    }

    #[test]
    fn seconds_are_told_in_microseconds() {
        let second = |text| one("TimeoutStopSec", text);
        for (text, expected) in [("2", 2_000_000), ("uint64 3", 3_000_000), ("0.25", 250_000)] {
            assert_eq!(
                second(text).unwrap(),
                ("TimeoutStopUSec".to_owned(), Value::Number(expected)),
                "{text}"
            );
        }
        for text in ["-1", "-0.5", "inf", "nan", "'2'", "uint64 18446744073709551615", "true", "[1]"] {
            assert!(second(text).is_err(), "{text}");
        }
        assert_eq!(one("TimeoutStopUSec", "uint64 5").unwrap().1, Value::Basic(Basic::Uint64(5)));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "uint64",
            "7 8",
            "2147483648",
            "byte 256",
            "uint32 -1",
            "'open",
            "[1, 'a']",
            "[1 2]",
            "[]",
            "[",
            "(1, 2)",
            "{'a': 1}",
            "<1>",
            "@a{sv} {}",
            "@v <1>",
            "@ 7",
            "@u",
            "nothing",
            "true false",
            "'\\ud800'",
            "'\\u0000'",
            "boolean 1",
        ] {
            assert!(one("Name", text).is_err(), "{text}");
        }
        for name in ["", "ab", "A.B", "Exec Start", "Ä-ä"] {
            assert!(one(name, "1").is_err(), "{name}");
        }
        for name in OWN {
            assert!(one(name, "1").unwrap_err().contains("own"), "{name}");
        }
    }

    #[test]
    fn an_error_names_the_annotation_and_others_do_not_matter() {
        let annotations = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
        };
        assert_eq!(properties(&annotations(&[("io.other", "x")])).unwrap(), []);
        let error = properties(&annotations(&[("org.systemd.property.CPUWeight", "x")])).unwrap_err();
        assert!(error.to_string().contains("annotations[\"org.systemd.property.CPUWeight\"]"), "{error}");
    }
}
