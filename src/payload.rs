//! A payload as JSON text. It is serialised once, when the caller passes it in, and never parsed again on its way to
//! the database.

use std::{io, sync::Arc};

use serde::{
    Serialize, Serializer,
    ser::{self},
};
use serde_json::ser::Formatter;

use crate::error::{Error, Result};

/// Maximum depth of nesting: the deepest that `serde_json` reads back into a type or a `Value`, so nothing is stored
/// that a consumer then can't read.
const DEEPEST: usize = 127;

/// A payload as JSON text.
pub(crate) fn encode<P: Serialize + ?Sized>(index: usize, payload: &P) -> Result<String> {
    let mut json = Vec::with_capacity(256);
    let mut nulls = false;
    let mut serializer = serde_json::Serializer::with_formatter(
        &mut json,
        Nesting {
            depth: 0,
            nulls: &mut nulls,
        },
    );
    let mut written = payload.serialize(&mut serializer);
    // JSON can't represent these: `serde_json` writes `null`, which a consumer could not tell from a real one.
    if written.is_ok()
        && nulls
        && let Some(error) = not_finite(payload)
    {
        written = Err(error);
    }
    match written {
        Ok(()) => Ok(String::from_utf8(json).expect("serde_json writes UTF-8")),
        // Writing to a vector doesn't fail, so the only I/O error is the one of `Nesting`.
        Err(error) if error.is_io() => Err(Error::PayloadTooDeep {
            index,
            limit: DEEPEST,
        }),
        Err(error) => Err(Error::Serialize {
            index,
            source: Arc::new(error),
        }),
    }
}

/// Writes compact JSON, no more than [`DEEPEST`] levels deep. Counting while writing costs nothing, and stops an
/// endlessly nested value before its recursion overflows the stack.
struct Nesting<'a> {
    depth: usize,
    /// Whether there was a `null`.
    nulls: &'a mut bool,
}

impl Nesting<'_> {
    fn enter(&mut self) -> io::Result<()> {
        if self.depth == DEEPEST {
            return Err(io::Error::other("nested too deeply"));
        }
        self.depth += 1;
        Ok(())
    }
}

impl Formatter for Nesting<'_> {
    fn write_null<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        *self.nulls = true;
        writer.write_all(b"null")
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter()?;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        writer.write_all(b"]")
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter()?;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        writer.write_all(b"}")
    }

    /// A `RawValue`: JSON that was not written here, and that `serde_json` has checked.
    fn write_raw_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let outside = self.depth;
        let (mut in_string, mut escaped) = (false, false);
        for byte in fragment.bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = in_string,
                b'"' => in_string = !in_string,
                b'[' | b'{' if !in_string => self.enter()?,
                b']' | b'}' if !in_string => self.depth -= 1,
                _ => {}
            }
        }
        self.depth = outside;
        writer.write_all(fragment.as_bytes())
    }
}

/// The first number in a payload that isn't finite, as an error that names its place.
fn not_finite<P: Serialize + ?Sized>(payload: &P) -> Option<serde_json::Error> {
    payload.serialize(Finder(&mut Path::default())).err()
}

/// The current position in a payload.
#[derive(Default)]
struct Path(String);

/// Walks through a payload, and fails at the first number that isn't finite.
struct Finder<'a>(&'a mut Path);

impl Finder<'_> {
    fn check(self, is_finite: bool) -> serde_json::Result<()> {
        if is_finite {
            return Ok(());
        }
        let place = &self.0.0;
        Err(ser::Error::custom(if place.is_empty() {
            "it is not a finite number, which JSON can't hold".to_owned()
        } else {
            format!("`{place}` is not a finite number, which JSON can't hold")
        }))
    }
}

/// Walks through the parts of a payload.
struct Parts<'a> {
    path: &'a mut Path,
    next: usize,
}

impl Parts<'_> {
    fn at<T: Serialize + ?Sized>(&mut self, place: &str, part: &T) -> serde_json::Result<()> {
        let outside = self.path.0.len();
        self.path.0.push_str(place);
        part.serialize(Finder(self.path))?;
        self.path.0.truncate(outside);
        Ok(())
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, part: &T) -> serde_json::Result<()> {
        let dot = if self.path.0.is_empty() { "" } else { "." };
        self.at(&format!("{dot}{name}"), part)
    }

    fn element<T: Serialize + ?Sized>(&mut self, part: &T) -> serde_json::Result<()> {
        let place = format!("[{}]", self.next);
        self.next += 1;
        self.at(&place, part)
    }
}

macro_rules! nothing_to_find {
    ($($name:ident($($kind:ty)?),)*) => {$(
        fn $name(self $(, _: $kind)?) -> serde_json::Result<()> {
            Ok(())
        }
    )*};
}

macro_rules! parts {
    ($($name:ident($($kind:ty),*) -> $of:ident,)*) => {$(
        fn $name(self $(, _: $kind)*) -> serde_json::Result<Parts<'a>> {
            Ok(Parts { path: self.0, next: 0 })
        }
    )*};
}

impl<'a> Serializer for Finder<'a> {
    type Ok = ();
    type Error = serde_json::Error;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    nothing_to_find! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32),
        serialize_i64(i64), serialize_i128(i128), serialize_u8(u8), serialize_u16(u16),
        serialize_u32(u32), serialize_u64(u64), serialize_u128(u128), serialize_char(char),
        serialize_str(&str), serialize_bytes(&[u8]), serialize_none(), serialize_unit(),
        serialize_unit_struct(&'static str),
    }

    fn serialize_f32(self, number: f32) -> serde_json::Result<()> {
        self.check(number.is_finite())
    }

    fn serialize_f64(self, number: f64) -> serde_json::Result<()> {
        self.check(number.is_finite())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, part: &T) -> serde_json::Result<()> {
        part.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> serde_json::Result<()> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        part: &T,
    ) -> serde_json::Result<()> {
        part.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        part: &T,
    ) -> serde_json::Result<()> {
        let mut parts = Parts {
            path: self.0,
            next: 0,
        };
        parts.field(variant, part)
    }

    parts! {
        serialize_seq(Option<usize>) -> Parts,
        serialize_tuple(usize) -> Parts,
        serialize_tuple_struct(&'static str, usize) -> Parts,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Parts,
        serialize_map(Option<usize>) -> Parts,
        serialize_struct(&'static str, usize) -> Parts,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Parts,
    }
}

macro_rules! elements {
    ($($of:ident::$name:ident,)*) => {$(
        impl ser::$of for Parts<'_> {
            type Ok = ();
            type Error = serde_json::Error;

            fn $name<T: Serialize + ?Sized>(&mut self, part: &T) -> serde_json::Result<()> {
                self.element(part)
            }

            fn end(self) -> serde_json::Result<()> {
                Ok(())
            }
        }
    )*};
}

elements! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

macro_rules! fields {
    ($($of:ident,)*) => {$(
        impl ser::$of for Parts<'_> {
            type Ok = ();
            type Error = serde_json::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                part: &T,
            ) -> serde_json::Result<()> {
                self.field(name, part)
            }

            fn end(self) -> serde_json::Result<()> {
                Ok(())
            }
        }
    )*};
}

fields! { SerializeStruct, SerializeStructVariant, }

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> serde_json::Result<()> {
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, part: &T) -> serde_json::Result<()> {
        self.field("*", part)
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> serde_json::Result<()> {
        let key = serde_json::to_string(key)?;
        self.field(key.trim_matches('"'), value)
    }

    fn end(self) -> serde_json::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::RawValue};

    use super::*;

    fn nested(depth: usize) -> Value {
        (1..depth).fold(json!([]), |inner, _| json!([inner]))
    }

    fn raw(json: &str) -> Box<RawValue> {
        serde_json::from_str(json).expect("valid JSON")
    }

    #[test]
    fn what_is_accepted_can_be_read_back_and_one_level_more_can_not() {
        let json = encode(0, &nested(DEEPEST)).expect("accepted");
        serde_json::from_str::<Value>(&json).expect("read back");

        let too_deep = encode(7, &nested(DEEPEST + 1)).expect_err("refused");
        assert!(matches!(
            too_deep,
            Error::PayloadTooDeep {
                index: 7,
                limit: DEEPEST
            }
        ));
        let json = serde_json::to_string(&nested(DEEPEST + 1)).expect("plain serde_json writes it");
        serde_json::from_str::<Value>(&json).expect_err("but does not read it");
    }

    #[test]
    fn raw_json_is_counted_too_but_not_what_stands_in_its_strings() {
        let brackets = format!(r#"{{"\"[[": "{}", "a": [{{}}, []]}}"#, "[{".repeat(500));
        assert_eq!(encode(0, &raw(&brackets)).expect("shallow"), brackets);

        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(matches!(
            encode(0, &raw(&deep)),
            Err(Error::PayloadTooDeep { .. })
        ));

        let inner = format!("{}{}", "[".repeat(DEEPEST - 1), "]".repeat(DEEPEST - 1));
        encode(0, &[raw(&inner)]).expect("as deep as can be");
        assert!(matches!(
            encode(0, &[[raw(&inner)]]),
            Err(Error::PayloadTooDeep { .. })
        ));
        encode(0, &[[raw("[]")], [raw("[]")]]).expect("side by side is not deeper");
    }

    #[test]
    fn a_bottomless_value_is_refused_before_it_overflows_the_stack() {
        struct Bottomless;
        impl Serialize for Bottomless {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq([Bottomless])
            }
        }
        assert!(matches!(
            encode(0, &Bottomless),
            Err(Error::PayloadTooDeep { .. })
        ));
    }

    #[test]
    fn a_number_that_is_not_finite_is_refused_with_its_place() {
        #[derive(Serialize)]
        struct Reading {
            at: Option<u32>,
            values: Vec<f64>,
        }
        let reading = |values| Reading { at: None, values };
        let refused = |error: Error| match error {
            Error::Serialize { index, source } => (index, source.to_string()),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refused(encode(3, &reading(vec![1.0, f64::NAN])).expect_err("refused")),
            (
                3,
                "`values[1]` is not a finite number, which JSON can't hold".to_owned()
            )
        );
        assert_eq!(
            refused(encode(0, &f32::INFINITY).expect_err("refused")).1,
            "it is not a finite number, which JSON can't hold"
        );
        let map = std::collections::HashMap::from([("a", Some((1, f64::NEG_INFINITY)))]);
        assert!(
            refused(encode(0, &map).expect_err("refused"))
                .1
                .starts_with("`a[1]`")
        );
        assert_eq!(
            encode(0, &reading(vec![1.5])).expect("finite"),
            r#"{"at":null,"values":[1.5]}"#
        );
    }
}
