//! Requests in JSON, read as Go's encoding/json reads them: keys in any case, unknown keys refused, `null` leaves the
//! zero value, the last of equal keys wins, what follows the value is ignored, text that is not UTF-8 is replaced.
//!
//! Values are decoded in one pass into their types; text without escapes is borrowed from the input.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Objects and arrays within one another. No request type needs more than four.
const DEPTH_MAX: usize = 32;
/// Keys and elements of one request. An empty element takes two bytes in the request, but up to a hundred in memory.
const ITEMS_MAX: usize = 100_000;

/// Reads a request. `null` is the empty request.
pub fn decode<'a, T: Decode<'a>>(input: &'a [u8]) -> Result<T, Error> {
    let mut value = T::default();
    value.decode(&mut Decoder { input, at: 0, depth: 0, items: 0 })?;
    Ok(value)
}

/// A type that a JSON value can be read into, over what is there already.
pub trait Decode<'a>: Default {
    fn decode(&mut self, from: &mut Decoder<'a>) -> Result<(), Error>;
}

/// Says once what the keys of a type are: for reading it, for writing it in the form that requests are compared in, and for
/// describing it under a name.
macro_rules! fields {
    ($type:ident $(<$a:lifetime>)? as $name:literal { $($(#[doc = $doc:literal])* $key:literal => $field:ident,)* }) => {
        impl<'a> $crate::webapi::json::Decode<'a> for $type $(<$a>)? {
            fn decode(
                &mut self,
                from: &mut $crate::webapi::json::Decoder<'a>,
            ) -> Result<(), $crate::webapi::json::Error> {
                from.object(|from, key| {
                    $(if $crate::webapi::json::is_key(key, $key) {
                        return self.$field.decode(from).map_err(|e| e.within($key));
                    })*
                    let _ = from;
                    Err($crate::webapi::json::Error::UnknownField(key.to_owned()))
                })
            }
        }

        impl $(<$a>)? serde::Serialize for $type $(<$a>)? {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let map = to.serialize_map(None)?;
                $(let map = {
                    let mut map = map;
                    serde::ser::SerializeMap::serialize_entry(&mut map, $key, &self.$field)?;
                    map
                };)*
                serde::ser::SerializeMap::end(map)
            }
        }

        impl $(<$a>)? $crate::openapi::Describe for $type $(<$a>)? {
            const NAME: Option<&'static str> = Some($name);
            fn schema(schemas: &mut $crate::openapi::Schemas) -> $crate::openapi::Schema {
                let _ = &schemas;
                let members = [
                    $($crate::openapi::member_of(schemas, $key, concat!($($doc),*), |value: &Self| &value.$field),)*
                ];
                $crate::openapi::Schema::object(true, members)
            }
        }
    };
}
pub(super) use fields;

/// Whether a request's key names this field: equal but for case, as Go folds it (with the long s and the Kelvin sign).
pub fn is_key(key: &str, field: &str) -> bool {
    let fold = |c: char| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key == field || key.chars().map(fold).eq(field.chars().map(fold))
}

impl<'a> Decode<'a> for Cow<'a, str> {
    fn decode(&mut self, from: &mut Decoder<'a>) -> Result<(), Error> {
        match from.kind()? {
            Kind::Null => from.literal("null"),
            Kind::String => from.string().map(|text| *self = text),
            other => Err(other.is_not("a string")),
        }
    }
}

impl<'a> Decode<'a> for String {
    fn decode(&mut self, from: &mut Decoder<'a>) -> Result<(), Error> {
        match from.kind()? {
            Kind::Null => from.literal("null"),
            Kind::String => from.string().map(|text| *self = text.into_owned()),
            other => Err(other.is_not("a string")),
        }
    }
}

impl<'a> Decode<'a> for bool {
    fn decode(&mut self, from: &mut Decoder<'a>) -> Result<(), Error> {
        match from.kind()? {
            Kind::Null => from.literal("null"),
            Kind::True => from.literal("true").map(|()| *self = true),
            Kind::False => from.literal("false").map(|()| *self = false),
            other => Err(other.is_not("a boolean")),
        }
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for Option<T> {
    fn decode(&mut self, from: &mut Decoder<'a>) -> Result<(), Error> {
        if from.kind()? == Kind::Null {
            *self = None;
            return from.literal("null");
        }
        self.get_or_insert_default().decode(from)
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for Vec<T> {
    fn decode(&mut self, from: &mut Decoder<'a>) -> Result<(), Error> {
        self.clear();
        from.array(|from, _| {
            let mut element = T::default();
            element.decode(from)?;
            self.push(element);
            Ok(())
        })
    }
}

/// As Go's arrays: missing elements are empty, further ones are dropped.
impl<'a, T: Decode<'a>, const N: usize> Decode<'a> for [T; N]
where
    [T; N]: Default,
{
    fn decode(&mut self, from: &mut Decoder<'a>) -> Result<(), Error> {
        *self = Default::default();
        from.array(|from, n| match self.get_mut(n) {
            Some(element) => element.decode(from),
            None => from.skip(),
        })
    }
}

impl<'a> Decode<'a> for BTreeMap<String, String> {
    fn decode(&mut self, from: &mut Decoder<'a>) -> Result<(), Error> {
        if from.kind()? == Kind::Null {
            self.clear();
        }
        from.object(|from, key| {
            let mut value = String::new();
            value.decode(from)?;
            self.insert(key.to_owned(), value);
            Ok(())
        })
    }
}

/// A place in the input.
pub struct Decoder<'a> {
    input: &'a [u8],
    at: usize,
    depth: usize,
    items: usize,
}

impl<'a> Decoder<'a> {
    /// Gives each key to `field`, which reads the value. `null` is an object without keys.
    pub fn object(&mut self, mut field: impl FnMut(&mut Self, &str) -> Result<(), Error>) -> Result<(), Error> {
        match self.kind()? {
            Kind::Null => return self.literal("null"),
            Kind::Object => self.enter()?,
            other => return Err(other.is_not("an object")),
        }
        if self.closes(b'}')? {
            return Ok(());
        }
        loop {
            self.count_item()?;
            if self.peek()? != b'"' {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let key = self.string()?;
            self.expect(b':', "after object key")?;
            field(self, &key)?;
            if self.closes(b'}')? {
                return Ok(());
            }
            self.expect(b',', "after object key:value pair")?;
        }
    }

    /// Gives the number of each element to `element`, which reads it. `null` is an array without elements.
    pub fn array(&mut self, mut element: impl FnMut(&mut Self, usize) -> Result<(), Error>) -> Result<(), Error> {
        match self.kind()? {
            Kind::Null => return self.literal("null"),
            Kind::Array => self.enter()?,
            other => return Err(other.is_not("an array")),
        }
        if self.closes(b']')? {
            return Ok(());
        }
        for n in 0.. {
            self.count_item()?;
            element(self, n)?;
            if self.closes(b']')? {
                break;
            }
            self.expect(b',', "after array element")?;
        }
        Ok(())
    }

    /// What kind of value comes next.
    pub fn kind(&mut self) -> Result<Kind, Error> {
        Ok(match self.peek()? {
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            b'"' => Kind::String,
            b't' => Kind::True,
            b'f' => Kind::False,
            b'n' => Kind::Null,
            b'-' | b'0'..=b'9' => Kind::Number,
            _ => return Err(self.unexpected("looking for beginning of value")),
        })
    }

    pub fn literal(&mut self, literal: &'static str) -> Result<(), Error> {
        for expected in literal.bytes() {
            match self.input.get(self.at) {
                Some(&byte) if byte == expected => self.at += 1,
                Some(_) => return Err(self.unexpected("in literal true, false or null")),
                None => return Err(Error::End),
            }
        }
        Ok(())
    }

    /// The string that begins here.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.at += 1;
        let run = self.plain_run();
        if self.input.get(self.at) == Some(&b'"') {
            self.at += 1;
            return Ok(to_text(run));
        }
        let mut text = to_text(run).into_owned();
        loop {
            match self.input.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => return Err(self.unexpected("in string literal")),
                None => return Err(Error::End),
            }
            text.push_str(&to_text(self.plain_run()));
        }
        self.at += 1;
        Ok(Cow::Owned(text))
    }

    /// Bytes of a string up to its end, an escape or a control character.
    fn plain_run(&mut self) -> &'a [u8] {
        let rest = &self.input[self.at..];
        let run = rest.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(rest.len());
        self.at += run;
        &rest[..run]
    }

    /// RFC 8259 §7. Half of a surrogate pair is replaced.
    fn escape(&mut self) -> Result<char, Error> {
        self.at += 1;
        let byte = *self.input.get(self.at).ok_or(Error::End)?;
        let plain = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.unexpected("in string escape code")),
        };
        self.at += 1;
        Ok(plain)
    }

    fn unicode_escape(&mut self) -> Result<char, Error> {
        let unit = self.hex4()?;
        if (0xd800..0xdc00).contains(&unit) && self.input[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let scalar = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Result<u32, Error> {
        let mut value = 0;
        for _ in 0..4 {
            let byte = *self.input.get(self.at).ok_or(Error::End)?;
            let Some(digit) = char::from(byte).to_digit(16) else {
                return Err(self.unexpected("in \\u hexadecimal character escape"));
            };
            value = value << 4 | digit;
            self.at += 1;
        }
        Ok(value)
    }

    /// Reads past a value of any type.
    fn skip(&mut self) -> Result<(), Error> {
        match self.kind()? {
            Kind::Object => self.object(|from, _| from.skip()),
            Kind::Array => self.array(|from, _| from.skip()),
            Kind::String => self.string().map(drop),
            Kind::Number => self.number(),
            Kind::True => self.literal("true"),
            Kind::False => self.literal("false"),
            Kind::Null => self.literal("null"),
        }
    }

    /// RFC 8259 §6.
    fn number(&mut self) -> Result<(), Error> {
        self.eat(b"-");
        if !self.eat(b"0") {
            self.digits()?;
        }
        if self.eat(b".") {
            self.digits()?;
        }
        if self.eat(b"eE") {
            self.eat(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Error> {
        let run = self.input[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += run;
        match (run, self.input.get(self.at)) {
            (0, None) => Err(Error::End),
            (0, Some(_)) => Err(self.unexpected("in numeric literal")),
            _ => Ok(()),
        }
    }

    fn eat(&mut self, any_of: &[u8]) -> bool {
        let there = self.input.get(self.at).is_some_and(|b| any_of.contains(b));
        self.at += usize::from(there);
        there
    }

    fn count_item(&mut self) -> Result<(), Error> {
        self.items += 1;
        if self.items > ITEMS_MAX { Err(Error::TooMany) } else { Ok(()) }
    }

    fn enter(&mut self) -> Result<(), Error> {
        if self.depth == DEPTH_MAX {
            return Err(Error::TooDeep);
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Whether the object or array ends here; if so, leaves it.
    fn closes(&mut self, bracket: u8) -> Result<bool, Error> {
        if self.peek()? != bracket {
            return Ok(false);
        }
        self.depth -= 1;
        self.at += 1;
        Ok(true)
    }

    fn expect(&mut self, byte: u8, place: &'static str) -> Result<(), Error> {
        if self.peek()? != byte {
            return Err(self.unexpected(place));
        }
        self.at += 1;
        Ok(())
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Result<u8, Error> {
        while let Some(&byte) = self.input.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(Error::End)
    }

    fn unexpected(&self, place: &'static str) -> Error {
        Error::Unexpected { found: self.input.get(self.at).copied().unwrap_or_default(), place }
    }
}

/// Text, with each byte that is not part of UTF-8 replaced, as Go does it.
fn to_text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// What a value is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

impl Kind {
    pub fn is_not(self, wanted: &'static str) -> Error {
        let found = match self {
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Number => "number",
            Kind::True | Kind::False => "bool",
            Kind::Null => "null",
        };
        Error::WrongType { found, wanted, field: String::new() }
    }
}

/// The text is no such request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    End,
    Unexpected {
        found: u8,
        place: &'static str,
    },
    TooDeep,
    TooMany,
    UnknownField(String),
    WrongType {
        found: &'static str,
        wanted: &'static str,
        field: String,
    },
    /// A string that is no RFC 3339 time.
    NoTime(String),
}

impl Error {
    /// Adds in which field it is.
    pub fn within(mut self, name: &'static str) -> Error {
        if let Error::WrongType { field, .. } = &mut self {
            *field = if field.is_empty() { name.to_owned() } else { format!("{name}.{field}") };
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::End => f.write_str("unexpected EOF"),
            Error::Unexpected { found, place } => write!(f, "invalid character {:?} {place}", char::from(*found)),
            Error::TooDeep => write!(f, "json: more than {DEPTH_MAX} objects and arrays within one another"),
            Error::TooMany => write!(f, "json: more than {ITEMS_MAX} keys and elements"),
            Error::UnknownField(key) => {
                write!(f, "json: unknown field {:?}", key.chars().take(80).collect::<String>())
            }
            Error::WrongType { found, wanted, field } if field.is_empty() => {
                write!(f, "json: the request must be {wanted}, not {found}")
            }
            Error::WrongType { found, wanted, field } => write!(f, "json: field {field} must be {wanted}, not {found}"),
            Error::NoTime(text) => write!(f, "parsing time {text:?}: not RFC 3339, such as 2026-01-02T03:04:05Z"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Probe {
        text: String,
        flag: bool,
        maybe: Option<bool>,
        list: Vec<Inner>,
        pair: Vec<[String; 2]>,
        map: BTreeMap<String, String>,
    }

    fields!(Probe as "Probe" {
        "Text" => text,
        "Flag" => flag,
        "Maybe" => maybe,
        "List" => list,
        "Pair" => pair,
        "Map" => map,
    });

    #[derive(Debug, Default, PartialEq)]
    struct Inner {
        skin: String,
    }

    fields!(Inner as "Inner" {
        "Skin" => skin,
    });

    /// The fields of the request that are not at their zero value, or the error.
    fn read(input: &[u8]) -> String {
        match decode::<Probe>(input) {
            Err(error) => format!("error: {error}"),
            Ok(probe) => {
                let mut value = serde_json::to_value(&probe).unwrap();
                let zero = serde_json::to_value(Probe::default()).unwrap();
                value.as_object_mut().unwrap().retain(|key, value| zero[key] != *value);
                value.to_string()
            }
        }
    }

    fn check(input: impl AsRef<[u8]>, expect: &str) {
        let input = input.as_ref();
        assert_eq!(read(input), expect, "{}", input.escape_ascii());
    }

    #[test]
    fn requests() {
        check("{}", "{}");
        check(" \t\r\n{ } ", "{}");
        check("null", "{}");
        check(r#"{"Text":"x","Flag":true,"Maybe":false}"#, r#"{"Flag":true,"Maybe":false,"Text":"x"}"#);
        check(r#"{"List":[{"Skin":"a"},null,{}]}"#, r#"{"List":[{"Skin":"a"},{"Skin":""},{"Skin":""}]}"#);
        check(
            r#"{"Pair":[["a","b"],["c"],["d","e",{"f":[1.5e+3,-0,true,null]}],[]]}"#,
            r#"{"Pair":[["a","b"],["c",""],["d","e"],["",""]]}"#,
        );
        check(r#"{"Map":{"a":"1","A":"2","b":null}}"#, r#"{"Map":{"A":"2","a":"1","b":""}}"#);
    }

    #[test]
    fn keys_in_any_case() {
        check(r#"{"text":"x"}"#, r#"{"Text":"x"}"#);
        check(r#"{"TEXT":"x","te\u0078t":"y"}"#, r#"{"Text":"y"}"#);
        check(r#"{"liſt":[{"s\u212aIN":"a"}]}"#, r#"{"List":[{"Skin":"a"}]}"#);
        check(r#"{"téxt":"x"}"#, r#"error: json: unknown field "téxt""#);
    }

    #[test]
    fn null_is_nothing() {
        check(r#"{"Text":null,"Flag":null,"Maybe":null,"List":null,"Pair":null,"Map":null}"#, "{}");
        check(r#"{"Text":"x","Text":null,"Flag":true,"Flag":null}"#, r#"{"Flag":true,"Text":"x"}"#);
        check(r#"{"Maybe":true,"Maybe":null,"List":[{}],"List":null,"Map":{"a":"b"},"Map":null}"#, "{}");
    }

    #[test]
    fn the_last_of_equal_keys_wins() {
        check(r#"{"Text":"x","text":"y"}"#, r#"{"Text":"y"}"#);
        check(r#"{"List":[{"Skin":"a"},{}],"List":[{}]}"#, r#"{"List":[{"Skin":""}]}"#);
        check(r#"{"Map":{"a":"1","b":"2"},"Map":{"a":"3"}}"#, r#"{"Map":{"a":"3","b":"2"}}"#);
    }

    #[test]
    fn what_follows_is_ignored() {
        check(r#"{"Text":"x"} garbage"#, r#"{"Text":"x"}"#);
        check("null{", "{}");
    }

    #[test]
    fn text() {
        check(r#"{"Text":"a\"\\\/\b\f\n\r\t\u00e9\u20AC"}"#, r#"{"Text":"a\"\\/\b\f\n\r\té€"}"#);
        check(r#"{"Text":"\ud83d\ude00"}"#, r#"{"Text":"😀"}"#);
        check(r#"{"Text":"\ud83d"}"#, "{\"Text\":\"\u{fffd}\"}");
        check(r#"{"Text":"\ud83dx"}"#, "{\"Text\":\"\u{fffd}x\"}");
        check(r#"{"Text":"\ude00\ud83d\u0041"}"#, "{\"Text\":\"\u{fffd}\u{fffd}A\"}");
        check(r#"{"Text":"\ud83d\ud83d\ude00"}"#, "{\"Text\":\"\u{fffd}😀\"}");
        check(b"{\"Text\":\"a\xffb\xe2\x98\"}", "{\"Text\":\"a\u{fffd}b\u{fffd}\u{fffd}\"}");
        check(b"{\"Text\":\"\\n\xff\"}", "{\"Text\":\"\\n\u{fffd}\"}");
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let borrowed = |input: &'static [u8]| matches!(decode::<Cow<'_, str>>(input), Ok(Cow::Borrowed(_)));
        assert!(borrowed(b"\"plain \xe2\x98\xba\""));
        assert!(!borrowed(b"\"a\\n\""));
    }

    #[test]
    fn wrong_types() {
        check("[]", "error: json: the request must be an object, not array");
        check("\"x\"", "error: json: the request must be an object, not string");
        check("1", "error: json: the request must be an object, not number");
        check(r#"{"Text":1}"#, "error: json: field Text must be a string, not number");
        check(r#"{"Flag":"true"}"#, "error: json: field Flag must be a boolean, not string");
        check(r#"{"List":{}}"#, "error: json: field List must be an array, not object");
        check(r#"{"List":[{"Skin":[]}]}"#, "error: json: field List.Skin must be a string, not array");
        check(r#"{"Map":{"a":1}}"#, "error: json: field Map must be a string, not number");
        check(r#"{"x":1}"#, r#"error: json: unknown field "x""#);
    }

    #[test]
    fn broken() {
        check("", "error: unexpected EOF");
        check("{", "error: unexpected EOF");
        check(r#"{"Text":"x"#, "error: unexpected EOF");
        check(r#"{"Text":"x\"#, "error: unexpected EOF");
        check(r#"{"Text":"\u00"#, "error: unexpected EOF");
        check("{bad", "error: invalid character 'b' looking for beginning of object key string");
        check("nul", "error: unexpected EOF");
        check("nulx", "error: invalid character 'x' in literal true, false or null");
        check(r#"{"Text" "x"}"#, "error: invalid character '\"' after object key");
        check(r#"{"Text":"x" "y"}"#, "error: invalid character '\"' after object key:value pair");
        check(r#"{"Text":"x",}"#, "error: invalid character '}' looking for beginning of object key string");
        check(r#"{"List":[{},]}"#, "error: invalid character ']' looking for beginning of value");
        check(r#"{"List":[{} {}]}"#, "error: invalid character '{' after array element");
        check(r#"{"Text":"\x"}"#, "error: invalid character 'x' in string escape code");
        check(r#"{"Text":"\u00g0"}"#, "error: invalid character 'g' in \\u hexadecimal character escape");
        check("{\"Text\":\"a\nb\"}", "error: invalid character '\\n' in string literal");
        check(r#"{"Pair":[["","",1.]]}"#, "error: invalid character ']' in numeric literal");
        check(r#"{"Pair":[["","",01]]}"#, "error: invalid character '1' after array element");
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!(r#"{{"Pair":[["","",{}{}]]}}"#, "[".repeat(n), "]".repeat(n));
        check(nested(DEPTH_MAX - 3), r#"{"Pair":[["",""]]}"#);
        check(nested(DEPTH_MAX - 2), "error: json: more than 32 objects and arrays within one another");
        check(nested(100_000), "error: json: more than 32 objects and arrays within one another");
    }

    #[test]
    fn items_are_bounded() {
        let many =
            |n: usize| decode::<Vec<String>>(format!("[{}\"\"]", "\"\",".repeat(n - 1)).as_bytes()).map(|v| v.len());
        assert_eq!(many(ITEMS_MAX), Ok(ITEMS_MAX));
        assert_eq!(many(ITEMS_MAX + 1), Err(Error::TooMany));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(text in "\\PC*", flag: bool, map: BTreeMap<String, String>) {
            let probe = Probe { text, flag, map, ..Probe::default() };
            let written = serde_json::to_vec(&probe).unwrap();
            prop_assert_eq!(decode::<Probe>(&written), Ok(probe));
        }

        #[test]
        fn nothing_panics(input: Vec<u8>) {
            let _ = decode::<Probe>(&input);
        }

        #[test]
        fn nothing_like_json_panics(input in "(\\{|\\}|\\[|\\]|:|,|\"|\\\\|u|d8|null|true|-|1|\\.|e|\"Text\"|\"Pair\"|\"List\"| ){0,60}") {
            let _ = decode::<Probe>(input.as_bytes());
        }
    }

    #[test]
    fn equal_requests_have_one_form() {
        fn form(input: &str) -> impl Serialize + PartialEq + std::fmt::Debug {
            serde_json::to_string(&decode::<Probe>(input.as_bytes()).unwrap()).unwrap()
        }
        assert_eq!(
            form(r#"{"text":"x","Map":{"b":"2","a":"1"}}"#),
            form(r#"{"Map":{"a":"1","b":"2"},"Text":"x","Flag":null}"#)
        );
        assert_ne!(form(r#"{"text":"x"}"#), form(r#"{"text":"y"}"#));
    }
}
