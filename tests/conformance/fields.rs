//! The fields of a type of oci-spec, as serde knows them: it reads a value that has one of everything, which is made
//! while it is read.

use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::de::{Error as _, IntoDeserializer};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Objects of other platforms, two fields that are Windows's, and two that only oci-spec has.
const NOT_LINUX: [&str; 8] = [
    "solaris",
    "windows",
    "vm",
    "zos",
    "process.commandLine",
    "process.user.username",
    "uidMappings",
    "gidMappings",
];

/// Two fields that 1.3 has no more, as the specification wrote them.
const SPELLED: [(&str, &str); 2] = [
    ("linux.intelRdt.enableCmt", "linux.intelRdt.enableCMT"),
    ("linux.intelRdt.enableMbm", "linux.intelRdt.enableMBM"),
];

/// Returns those that have no fields of their own, as `linux.resources.memory.limit`. Lists and maps leave no trace.
pub fn of<T: DeserializeOwned>(root: &str) -> BTreeSet<String> {
    let found = RefCell::default();
    let place = Place { path: root.into(), found: &found };
    T::deserialize(place).unwrap_or_else(|e| panic!("{root}: {e}"));
    let spelled = |path: String| {
        let known = SPELLED.into_iter().find(|(theirs, _)| *theirs == path);
        known.map_or(path, |(_, right)| right.into())
    };
    found.into_inner().into_iter().map(spelled).collect()
}

#[derive(Clone)]
struct Place<'a> {
    path: String,
    found: &'a RefCell<BTreeSet<String>>,
}

impl<'a> Place<'a> {
    fn below(&self, field: &str) -> Option<Place<'a>> {
        let path = if self.path.is_empty() { field.into() } else { format!("{}.{field}", self.path) };
        (!NOT_LINUX.contains(&path.as_str())).then_some(Place { path, found: self.found })
    }

    fn is_leaf(&self) {
        self.found.borrow_mut().insert(self.path.clone());
    }

    /// Some text is checked while it is read.
    fn text(&self) -> &'static str {
        if self.path.contains("capabilities") {
            "CAP_CHOWN"
        } else {
            "0"
        }
    }
}

/// What is in a list or an object: for each element its name, if it has one, and its place.
struct Elements<'a>(std::vec::IntoIter<(&'static str, Place<'a>)>, Option<Place<'a>>);

impl<'a> Elements<'a> {
    fn new(all: Vec<(&'static str, Place<'a>)>) -> Self {
        Elements(all.into_iter(), None)
    }
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|(_, place)| seed.deserialize(place)).transpose()
    }
}

impl<'de> MapAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, place)) = self.0.next() else { return Ok(None) };
        self.1 = Some(place);
        let name: StrDeserializer<'_, Error> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(self.1.take().expect("its key came before"))
    }
}

macro_rules! leaves {
    ($($read:ident => $visit:ident($value:expr);)*) => {
        $(fn $read<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.is_leaf();
            visitor.$visit($value)
        })*
    };
}

impl<'de> Deserializer<'de> for Place<'_> {
    type Error = Error;

    leaves! {
        deserialize_bool => visit_bool(false);
        deserialize_i32 => visit_i32(0);
        deserialize_i64 => visit_i64(0);
        deserialize_u16 => visit_u16(0);
        deserialize_u32 => visit_u32(0);
        deserialize_u64 => visit_u64(0);
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.is_leaf();
        visitor.visit_str(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Elements::new(vec![("", self)]))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Elements::new(vec![("", self)]))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let all = fields.iter().filter_map(|field| Some((*field, self.below(field)?)));
        visitor.visit_map(Elements::new(all.collect()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.is_leaf();
        let first: StrDeserializer<'_, Error> = variants.first().expect("a variant").into_deserializer();
        visitor.visit_enum(first)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom(format!("{}: of a type that is not read here", self.path)))
    }

    serde::forward_to_deserialize_any! {
        i8 i16 u8 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct identifier
        ignored_any
    }
}
