//! Reading what a program sends: strictly, so that it means one thing or is refused with the field named.

use std::{fmt, sync::Arc};

use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::{
    control::{answer::Problem, desk::Desk},
    fault::nearest,
};

/// How deep a body may be: objects with lists of texts need two.
const DEPTH: usize = 8;
/// How much of what was sent is said again.
const SHOWN: usize = 200;

/// A body: a JSON object of which every field is known.
pub trait Fields: DeserializeOwned + Default {
    /// All fields that it may have.
    const FIELDS: &'static [&'static str];
}

/// A body that must be there.
#[derive(Debug)]
pub struct Body<T>(pub T);

/// A body that may be left out.
#[derive(Debug)]
pub struct OptionalBody<T>(pub Option<T>);

impl<T: Fields> FromRequest<Arc<Desk>> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, desk: &Arc<Desk>) -> Result<Self, Problem> {
        let OptionalBody(body) = OptionalBody::from_request(request, desk).await?;
        body.map(Self).ok_or_else(|| malformed("The body is missing: a JSON object is expected."))
    }
}

impl<T: Fields> FromRequest<Arc<Desk>> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Arc<Desk>) -> Result<Self, Problem> {
        let is_json = is_json(request.headers());
        // The front has read it, within its bounds.
        let bytes = to_bytes(request.into_body(), usize::MAX).await.map_err(|_| malformed("The body broke off."))?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        if !is_json {
            let message = "The body must be JSON: send Content-Type: application/json.";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
        }
        read(&bytes).map(|body| Self(Some(body)))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let name = value.split(';').next().unwrap_or_default().trim();
    name.eq_ignore_ascii_case("application/json")
}

/// Reads an object.
///
/// # Errors
///
/// What is wrong with it, with the field named.
pub fn read<T: Fields>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict(DEPTH).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    let value = value.map_err(|error| malformed(&format!("The body is no JSON that can be read: {error}.")))?;
    let Value::Object(object) = &value else { return Err(malformed("The body must be a JSON object.")) };
    if let Some(unknown) = object.keys().find(|name| !T::FIELDS.contains(&name.as_str())) {
        let near = nearest(unknown, T::FIELDS.iter().copied());
        let advice = near
            .map_or_else(|| format!("there are {}", T::FIELDS.join(", ")), |near| format!("did you mean `{near}`?"));
        return Err(malformed(&format!("The body has an unknown field `{unknown}`: {advice}")));
    }
    T::deserialize(&value).map_err(|error| place::<T>(object, &error))
}

/// Finds the field that cannot be read: none of them is required by its type, so that each can be tried by itself.
fn place<T: Fields>(object: &Map<String, Value>, error: &serde_json::Error) -> Problem {
    for (name, value) in object {
        let Some(known) = T::FIELDS.iter().find(|known| *known == name) else { continue };
        if let Err(error) = T::deserialize(Value::Object(Map::from_iter([(name.clone(), value.clone())]))) {
            return Problem { field: Some(known), ..malformed(&format!("`{known}`: {error}.")) };
        }
    }
    malformed(&format!("The body cannot be read: {error}."))
}

/// What was sent is not what the document says.
pub fn malformed(message: &str) -> Problem {
    let plain: String = message.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let shown = match plain.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &plain[..end]),
        None => plain,
    };
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", shown)
}

/// A field that may be null, and that may be left out: which of both makes a difference.
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// A JSON value in which no name stands twice, and that is not too deep.
#[derive(Clone, Copy)]
struct Strict(usize);

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("it is nested too deep"))
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(inner)?;
            if object.contains_key(&name) {
                return Err(serde::de::Error::custom(format_args!("the field `{name}` stands twice")));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// What stands in the path.
#[derive(Debug)]
pub struct At<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // What cannot be decoded is the name of nothing.
        Path::from_request_parts(parts, state).await.map(|Path(at)| Self(at)).map_err(|_| Problem::not_found("page"))
    }
}

/// The query: each parameter once, and none that is not known.
#[derive(Debug)]
pub struct Asked(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        query.map(|Query(pairs)| Self(pairs)).map_err(|_| malformed("The query cannot be read."))
    }
}

impl Asked {
    /// Takes a parameter.
    ///
    /// # Errors
    ///
    /// It stands there twice.
    pub fn take(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut found = self.0.extract_if(.., |(key, _)| key == name);
        let value = found.next().map(|(_, value)| value);
        match found.next() {
            Some(_) => Err(Problem { field: Some(name), ..malformed(&format!("`{name}` stands in the query twice.")) }),
            None => Ok(value),
        }
    }

    /// Takes a parameter, and reads it.
    ///
    /// # Errors
    ///
    /// It stands there twice, or is not what it should be.
    pub fn read<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Problem> {
        let value = self.take(name)?;
        let wrong = |why: E| Problem { field: Some(name), ..malformed(&format!("`{name}`: {why}.")) };
        value.map(|value| read(&value).map_err(wrong)).transpose()
    }

    /// How many are asked for.
    ///
    /// # Errors
    ///
    /// It is no number from 1 to `most`.
    pub fn limit(&mut self, usual: usize, most: usize) -> Result<usize, Problem> {
        let read = |text: &str| {
            let number = text.parse().ok().filter(|number| text.len() <= 5 && (1..=most).contains(number));
            number.ok_or_else(|| format!("expected a number from 1 to {most}"))
        };
        Ok(self.read("limit", read)?.unwrap_or(usual))
    }

    /// To be called when all that is known was taken.
    ///
    /// # Errors
    ///
    /// There is more.
    pub fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            Some((name, _)) => Err(malformed(&format!("The query has an unknown parameter `{name}`."))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    struct Sample {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        list: Option<Vec<String>>,
        #[serde(default, deserialize_with = "present")]
        end: Option<Option<String>>,
    }

    impl Fields for Sample {
        const FIELDS: &'static [&'static str] = &["name", "list", "end"];
    }

    #[track_caller]
    fn check(text: impl AsRef<[u8]>, said: &str) {
        let problem = read::<Sample>(text.as_ref()).unwrap_err();
        assert!(problem.message.contains(said), "{}", problem.message);
        assert!(problem.message.chars().count() <= SHOWN + 1 && problem.status == StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_body_means_one_thing_or_is_refused() {
        let read = |text: &str| read::<Sample>(text.as_bytes()).unwrap();
        assert_eq!(read(" {\"name\":\"\\u00e4\"}\n").name.as_deref(), Some("ä"));
        assert_eq!(read("{}"), Sample::default());
        assert_eq!(read("{\"end\":null}").end, Some(None));
        check("", "EOF");
        check("[]", "must be a JSON object");
        check("null", "must be a JSON object");
        check("{\"name\":\"a\",\"name\":\"b\"}", "`name` stands twice");
        check("{\"name\":\"a\",\"n\\u0061me\":\"b\"}", "`name` stands twice");
        check("{\"nam\":\"a\"}", "did you mean `name`?");
        check("{\"Name\":\"a\"}", "did you mean `name`?");
        check("{\"name\":1}", "`name`: invalid type");
        check("{\"name\":\"a\",\"list\":[1]}", "`list`: invalid type");
        check("{\"list\":\"a\"}", "`list`: invalid type");
        check("{\"name\":\"\\ud800\"}", "no JSON");
        check(b"{\"name\":\"\xff\"}", "no JSON");
        check("\u{feff}{}", "no JSON");
        check("{} {}", "no JSON");
        check("{\"name\":NaN}", "no JSON");
        check("{\"name\":1e999}", "no JSON");
        check("{\"name\":'a'}", "no JSON");
        check("{\"name\":\"a\",}", "no JSON");
        check(format!("{{\"name\":{}1{}}}", "[".repeat(9), "]".repeat(9)), "nested too deep");
        check("[".repeat(100_000), "nested too deep");
        check(format!("{{\"{}\":1}}", "\\u001b[2J".repeat(1000)), "unknown field ` [2J");
    }
}
