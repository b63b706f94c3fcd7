//! The D-Bus messages exchanged with systemd, in little endian (dbus.freedesktop.org, "D-Bus Specification", sections
//! "Type System" and "Message Format"). ARCHITECTURE.md lists the libraries that were considered.

use super::basic::Basic;
use crate::error::{Error, Kind, Result};
use std::borrow::Cow;

/// The types of units' properties.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    Pids(Vec<u32>),
    Bytes(Vec<u8>),
    Pairs(Vec<(String, String)>),
    /// As the specification has it.
    Basic(Basic),
    /// The elements' type and the elements.
    Array(char, Vec<Basic>),
}

impl Value {
    fn signature(&self) -> Cow<'static, str> {
        match self {
            Value::Text(_) => "s".into(),
            Value::Flag(_) => "b".into(),
            Value::Number(_) => "t".into(),
            Value::Pids(_) => "au".into(),
            Value::Bytes(_) => "ay".into(),
            Value::Pairs(_) => "a(ss)".into(),
            Value::Basic(value) => value.kind().to_string().into(),
            Value::Array(kind, _) => format!("a{kind}").into(),
        }
    }
}

pub(super) type Property = (&'static str, Value);

/// Serialises values one after the other, each aligned to its size from the start.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn boolean(&mut self, value: bool) {
        self.u32(value.into());
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Writes a string or an object path.
    pub(super) fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// Writes an array. Its length covers the elements, not the padding before the first one.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => self.text(text),
            Value::Flag(flag) => self.boolean(*flag),
            Value::Number(number) => self.u64(*number),
            Value::Pids(pids) => self.array(4, |w| pids.iter().for_each(|pid| w.u32(*pid))),
            Value::Bytes(bytes) => self.array(1, |w| w.0.extend(bytes)),
            Value::Pairs(pairs) => self.array(8, |w| {
                for (first, second) in pairs {
                    w.align(8);
                    w.text(first);
                    w.text(second);
                }
            }),
            Value::Basic(value) => self.basic(value),
            Value::Array(kind, elements) => {
                self.array(Basic::alignment(*kind), |w| elements.iter().for_each(|element| w.basic(element)));
            }
        }
    }

    fn basic(&mut self, value: &Basic) {
        self.align(Basic::alignment(value.kind()));
        match value {
            Basic::Flag(flag) => self.boolean(*flag),
            Basic::Byte(number) => self.0.push(*number),
            Basic::Int16(number) => self.0.extend(number.to_le_bytes()),
            Basic::Uint16(number) => self.0.extend(number.to_le_bytes()),
            Basic::Int32(number) => self.0.extend(number.to_le_bytes()),
            Basic::Uint32(number) => self.u32(*number),
            Basic::Int64(number) => self.0.extend(number.to_le_bytes()),
            Basic::Uint64(number) => self.u64(*number),
            Basic::Double(number) => self.0.extend(number.to_le_bytes()),
            Basic::Text(text) => self.text(text),
        }
    }

    /// Writes an `a(sv)`.
    pub(super) fn properties<N: AsRef<str>>(&mut self, properties: &[(N, Value)]) {
        self.array(8, |w| {
            for (name, value) in properties {
                w.align(8);
                w.text(name.as_ref());
                w.signature(&value.signature());
                w.value(value);
            }
        });
    }

    /// Writes an empty `a(sa(sv))`: the auxiliary units of StartTransientUnit.
    pub(super) fn no_units(&mut self) {
        self.array(8, |_| {});
    }
}

const METHOD_CALL: u8 = 1;
pub(super) const METHOD_RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// Codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// The addressee of a method call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
}

pub(super) fn call(target: Target, member: &str, signature: &str, body: &Writer, serial: u32) -> Vec<u8> {
    let mut message = Writer(vec![b'l', METHOD_CALL, 0, 1]);
    message.u32(body.0.len() as u32);
    message.u32(serial);
    message.array(8, |w| {
        for (code, kind, text) in [
            (PATH, "o", target.path),
            (INTERFACE, "s", target.interface),
            (MEMBER, "s", member),
            (DESTINATION, "s", target.destination),
        ] {
            w.align(8);
            w.0.push(code);
            w.signature(kind);
            w.text(text);
        }
        if !signature.is_empty() {
            w.align(8);
            w.0.push(SIGNATURE);
            w.signature("g");
            w.signature(signature);
        }
    });
    message.align(8);
    message.0.extend(&body.0);
    message.0
}

/// The length of the fixed part of every message, which must be read first.
pub(super) const START: usize = 16;

/// The longest message accepted: no message of systemd's comes near it; a peer that claims more is not systemd.
const LONGEST: usize = 16 << 20;

/// Returns how many bytes follow the first [`START`] ones.
pub(super) fn rest_length(start: &[u8; START]) -> Result<usize> {
    let mut reader = Reader { bytes: start, at: 4 };
    let body = reader.u32()? as usize;
    reader.u32()?;
    let fields = reader.u32()? as usize;
    if start[0] != b'l' || start[3] != 1 || body > LONGEST || fields > LONGEST {
        return Err(broken());
    }
    Ok(fields.next_multiple_of(8) + body)
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) reply_to: u32,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) body: Vec<u8>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Message> {
    let mut reader = Reader { bytes, at: 1 };
    let mut message = Message { kind: reader.byte()?, ..Message::default() };
    reader.at = 12;
    let end = reader.u32()? as usize + START;
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        match reader.signature()? {
            "u" => {
                let number = reader.u32()?;
                if code == REPLY_SERIAL {
                    message.reply_to = number;
                }
            }
            "s" | "o" => {
                let text = reader.text()?;
                match code {
                    MEMBER => message.member = text.to_owned(),
                    ERROR_NAME => message.error = text.to_owned(),
                    _ => {}
                }
            }
            "g" => {
                reader.signature()?;
            }
            _ => return Err(broken()),
        }
    }
    reader.align(8);
    message.body = bytes.get(reader.at..).ok_or_else(broken)?.to_vec();
    Ok(message)
}

#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Reader { bytes: body, at: 0 }
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or_else(broken)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(broken)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1)?.first().copied().ok_or_else(broken)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| broken())?;
        Ok(u32::from_le_bytes(bytes))
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        let length = self.u32()? as usize;
        self.string(length)
    }

    pub(super) fn signature(&mut self) -> Result<&'a str> {
        let length = self.byte()?.into();
        self.string(length)
    }

    fn string(&mut self, length: usize) -> Result<&'a str> {
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| broken())
    }
}

fn broken() -> Error {
    Error::new(Kind::Unavailable, "systemd's answer is not a D-Bus message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::wire::{
        serialized::{Context, Data},
        to_bytes, LE,
    };
    use zbus::{ObjectPath, Signature, Variant};

    const TARGET: Target = Target { destination: "d.d", path: "/p", interface: "i.i" };

    #[test]
    fn what_is_written_reads_the_same_for_zbus() {
        let mut body = Writer::default();
        body.text("unit");
        body.boolean(true);
        body.properties(&[
            ("A", Value::Text("text".into())),
            ("B", Value::Flag(false)),
            ("C", Value::Number(7)),
            ("D", Value::Pids(vec![1, 2])),
            ("E", Value::Bytes(vec![7, 2, 1])),
            ("F", Value::Pairs(vec![("x".into(), "r".into()), ("yy".into(), "rw".into())])),
            ("G", Value::Pairs(Vec::new())),
            ("H", Value::Basic(Basic::Byte(7))),
            ("I", Value::Basic(Basic::Int16(-7))),
            ("J", Value::Basic(Basic::Double(1.5))),
            ("K", Value::Basic(Basic::Text("x".into()))),
            ("L", Value::Array('x', vec![Basic::Int64(-1), Basic::Int64(2)])),
            ("M", Value::Array('b', vec![Basic::Flag(true)])),
            ("N", Value::Array('s', Vec::new())),
        ]);
        body.no_units();
        let pairs = |pairs: &[(&'static str, &'static str)]| Variant::from(pairs.to_vec());
        let properties = vec![
            ("A", Variant::from("text")),
            ("B", Variant::from(false)),
            ("C", Variant::from(7u64)),
            ("D", Variant::from(vec![1u32, 2])),
            ("E", Variant::from(vec![7u8, 2, 1])),
            ("F", pairs(&[("x", "r"), ("yy", "rw")])),
            ("G", pairs(&[])),
            ("H", Variant::from(7u8)),
            ("I", Variant::from(-7i16)),
            ("J", Variant::from(1.5f64)),
            ("K", Variant::from("x")),
            ("L", Variant::from(vec![-1i64, 2])),
            ("M", Variant::from(vec![true])),
            ("N", Variant::from(Vec::<&str>::new())),
        ];
        let no_units: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let expected = to_bytes(Context::new(LE, 0), &("unit", true, properties, no_units)).unwrap();
        assert_eq!(body.bytes().escape_ascii().to_string(), expected.escape_ascii().to_string());

        let bytes = call(TARGET, "Member", "sba(sv)a(sa(sv))", &body, 9);
        let data = Data::new(bytes.as_slice(), Context::new(LE, 0));
        type Header<'a> = (u8, u8, u8, u8, u32, u32, Vec<(u8, Variant<'a>)>);
        let (header, end): (Header<'_>, usize) = data.deserialize().unwrap();
        let fields = vec![
            (PATH, ObjectPath::try_from("/p").unwrap().into()),
            (INTERFACE, "i.i".into()),
            (MEMBER, "Member".into()),
            (DESTINATION, "d.d".into()),
            (SIGNATURE, Signature::try_from("sba(sv)a(sa(sv))").unwrap().into()),
        ];
        assert_eq!(header, (b'l', METHOD_CALL, 0, 1, body.bytes().len() as u32, 9, fields));
        assert_eq!(&bytes[end.next_multiple_of(8)..], body.bytes());
    }

    #[test]
    fn a_call_is_a_message_that_parses() {
        let mut body = Writer::default();
        body.text("unit");
        body.boolean(true);
        let bytes = call(TARGET, "Member", "sb", &body, 9);
        let start: [u8; START] = bytes[..START].try_into().unwrap();
        assert_eq!(rest_length(&start).unwrap(), bytes.len() - START);
        let message = parse(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (METHOD_CALL, "Member"));
        let mut reader = Reader::new(&message.body);
        assert_eq!((reader.text().unwrap(), reader.u32().unwrap()), ("unit", 1));
        assert!(reader.u32().is_err(), "there is no more");
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(rest_length(b"HTTP/1.1 400 Bad").is_err());
        let mut endless = *b"l\x02\0\x01\0\0\0\0\x01\0\0\0\0\0\0\0";
        assert_eq!(rest_length(&endless).unwrap(), 0);
        endless[7] = 0x7f;
        assert!(rest_length(&endless).is_err());
        assert!(parse(b"l\x02\0\x01\0\0\0\0\x01\0\0\0\xff\xff\0\0\x05\x01u\0").is_err());
    }
}
