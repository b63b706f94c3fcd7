//! The basic types of D-Bus (its specification, "Basic types"), and how numbers are written in GVariant's text format.

/// A value of a basic type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Basic {
    Flag(bool),
    Byte(u8),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Text(String),
}

impl Basic {
    pub(super) fn kind(&self) -> char {
        match self {
            Basic::Flag(_) => 'b',
            Basic::Byte(_) => 'y',
            Basic::Int16(_) => 'n',
            Basic::Uint16(_) => 'q',
            Basic::Int32(_) => 'i',
            Basic::Uint32(_) => 'u',
            Basic::Int64(_) => 'x',
            Basic::Uint64(_) => 't',
            Basic::Double(_) => 'd',
            Basic::Text(_) => 's',
        }
    }

    /// Reads a literal that is no string. The outer None: there is no such type.
    pub(super) fn parse(kind: char, word: &str) -> Option<Option<Basic>> {
        let integer = integer(word);
        Some(match kind {
            'b' => word.parse().ok().map(Basic::Flag),
            'y' => integer.and_then(|number| number.try_into().ok()).map(Basic::Byte),
            'n' => integer.and_then(|number| number.try_into().ok()).map(Basic::Int16),
            'q' => integer.and_then(|number| number.try_into().ok()).map(Basic::Uint16),
            'i' => integer.and_then(|number| number.try_into().ok()).map(Basic::Int32),
            'u' => integer.and_then(|number| number.try_into().ok()).map(Basic::Uint32),
            'x' => integer.and_then(|number| number.try_into().ok()).map(Basic::Int64),
            't' => integer.and_then(|number| number.try_into().ok()).map(Basic::Uint64),
            'd' => word.parse().ok().map(Basic::Double),
            's' => None,
            _ => return None,
        })
    }

    pub(super) fn integer(&self) -> Option<i128> {
        match self {
            Basic::Byte(number) => Some((*number).into()),
            Basic::Int16(number) => Some((*number).into()),
            Basic::Uint16(number) => Some((*number).into()),
            Basic::Int32(number) => Some((*number).into()),
            Basic::Uint32(number) => Some((*number).into()),
            Basic::Int64(number) => Some((*number).into()),
            Basic::Uint64(number) => Some((*number).into()),
            Basic::Flag(_) | Basic::Double(_) | Basic::Text(_) => None,
        }
    }

    pub(super) fn alignment(kind: char) -> usize {
        match kind {
            'y' => 1,
            'n' | 'q' => 2,
            'x' | 't' | 'd' => 8,
            _ => 4,
        }
    }
}

/// In decimal, in hexadecimal (`0x`) or in octal (`0`).
fn integer(word: &str) -> Option<i128> {
    let digits = word.trim_start_matches(['+', '-']);
    if word.len() > digits.len() + 1 || !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let number = match digits.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16),
        None if digits.len() > 1 && digits.starts_with('0') => i128::from_str_radix(digits, 8),
        None => digits.parse(),
    };
    let number = number.ok().filter(|number| *number >= 0)?;
    Some(if word.starts_with('-') { -number } else { number })
}
