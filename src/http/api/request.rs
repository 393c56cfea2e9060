//! Reading requests: query parameters, ids and bodies. What cannot be read is refused with its name.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor, value};
use url::form_urlencoded;

use crate::http::Problem;
use crate::store::PageRequest;

/// Items on a page, if the request does not say.
pub const DEFAULT_LIMIT: usize = 50;
/// Items on a page at most.
pub const LARGEST_LIMIT: usize = 500;

/// The parameters of a query, each once, or several times where `T` has a list. Empty ones count as absent: forms send
/// those.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(parts.uri.query().unwrap_or_default()).map(Self).map_err(|Unreadable(reason)| Problem::bad_request(reason))
    }
}

/// The id in a path.
pub struct Id<T>(pub T);

impl<T: std::str::FromStr, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
        text.parse().map(Self).map_err(|_| Problem::bad_request(format!("`{text}` is not an id: ids are UUIDs")))
    }
}

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match <axum::Json<T> as FromRequest<S>>::from_request(request, state).await {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(refusal(&rejection)),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        match <axum::Json<T> as OptionalFromRequest<S>>::from_request(request, state).await {
            Ok(body) => Ok(body.map(|axum::Json(body)| Self(body))),
            Err(rejection) => Err(refusal(&rejection)),
        }
    }
}

fn refusal(rejection: &JsonRejection) -> Problem {
    let detail = match rejection {
        JsonRejection::MissingJsonContentType(_) => {
            "send the body as JSON, with `content-type: application/json`".into()
        }
        other => other.body_text(),
    };
    Problem::new(rejection.status()).with_detail(detail)
}

/// A body that is JSON and still not what is needed.
pub fn unprocessable(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY).with_detail(detail)
}

/// Which page of a list a request asks for.
pub fn page<Id>(after: Option<Id>, limit: Option<usize>) -> Result<PageRequest<Id>, Problem> {
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=LARGEST_LIMIT => Ok(PageRequest { after, limit }),
        _ => Err(Problem::bad_request(format!("query parameter `limit`: it must be from 1 to {LARGEST_LIMIT}"))),
    }
}

/// Why a query cannot be read.
#[derive(Debug)]
struct Unreadable(String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

impl de::Error for Unreadable {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self(format!("there is no query parameter `{field}`; there are: {}", known.join(", ")))
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Self(format!("`{variant}` is none of: {}", known.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("the query parameter `{field}` is missing"))
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T, Unreadable> {
    let mut parameters: Vec<Parameter> = Vec::new();
    for (name, text) in form_urlencoded::parse(query.as_bytes()).filter(|(_, text)| !text.is_empty()) {
        match parameters.iter_mut().find(|parameter| parameter.name == name) {
            Some(parameter) => parameter.texts.push(text.into_owned()),
            None => parameters.push(Parameter { name: name.into_owned(), texts: vec![text.into_owned()] }),
        }
    }
    T::deserialize(value::MapAccessDeserializer::new(Parameters { rest: parameters.into_iter(), current: None }))
}

/// The parameters of a query, as a map; an error in one of them says in which.
struct Parameters {
    rest: std::vec::IntoIter<Parameter>,
    current: Option<Parameter>,
}

impl<'de> MapAccess<'de> for Parameters {
    type Error = Unreadable;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unreadable> {
        self.current = self.rest.next();
        self.current.as_ref().map(|parameter| seed.deserialize(parameter.name.as_str().into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unreadable> {
        let Some(parameter) = self.current.take() else { return Err(Unreadable("a value without a name".into())) };
        let name = parameter.name.clone();
        let value = seed.deserialize(parameter);
        value.map_err(|Unreadable(reason)| Unreadable(format!("query parameter `{name}`: {reason}")))
    }
}

/// A parameter with the texts it was given.
struct Parameter {
    name: String,
    texts: Vec<String>,
}

impl Parameter {
    fn one(mut self) -> Result<Text, Unreadable> {
        match (self.texts.pop(), self.texts.is_empty()) {
            (Some(text), true) => Ok(Text(text)),
            _ => Err(Unreadable("it is there more than once".into())),
        }
    }
}

impl<'de> Deserializer<'de> for Parameter {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.one()?.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_seq(value::SeqDeserializer::new(self.texts.into_iter().map(Text)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.one()?.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.one()?.deserialize_bool(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.one()?.deserialize_u64(visitor)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// One text of a parameter.
struct Text(String);

impl IntoDeserializer<'_, Unreadable> for Text {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Text {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_string(self.0)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self.0.parse() {
            Ok(value) => visitor.visit_bool(value),
            Err(_) => Err(Unreadable(format!("`{}` is neither true nor false", self.0))),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self.0.parse() {
            Ok(value) => visitor.visit_u64(value),
            Err(_) => Err(Unreadable(format!("`{}` is not a whole number", self.0))),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::model::{RunId, RunState, Timestamp};

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Wanted {
        state: Vec<RunState>,
        workflow: Option<String>,
        since: Option<Timestamp>,
        after: Option<RunId>,
        limit: Option<usize>,
        all: bool,
    }

    fn refused(query: &str) -> String {
        read::<Wanted>(query).unwrap_err().to_string()
    }

    #[test]
    fn parameters_are_read_by_their_types() {
        let id = RunId::new();
        let query = format!(
            "state=failed&state=running&workflow=a%20b&since=2026-01-01T00%3A00%3A00Z&after={id}&limit=7&all=true"
        );
        let read: Wanted = read(&query).unwrap();
        assert_eq!(read.state, [RunState::Failed, RunState::Running]);
        assert_eq!(read.workflow.as_deref(), Some("a b"));
        assert_eq!(read.since.unwrap().to_string(), "2026-01-01T00:00:00.000000Z");
        assert_eq!((read.after, read.limit, read.all), (Some(id), Some(7), true));
    }

    #[test]
    fn what_a_form_leaves_empty_is_absent() {
        assert_eq!(read::<Wanted>("workflow=&state=&since=&limit=").unwrap(), Wanted::default());
    }

    #[test]
    fn a_refusal_names_the_parameter() {
        assert!(refused("stat=x").starts_with("there is no query parameter `stat`; there are: state, workflow"));
        assert!(refused("state=done").starts_with("query parameter `state`: `done` is none of: pending"));
        assert_eq!(refused("limit=many"), "query parameter `limit`: `many` is not a whole number");
        assert!(refused("since=yesterday").starts_with("query parameter `since`: "));
        assert!(refused("after=1").starts_with("query parameter `after`: "));
        assert_eq!(refused("limit=1&limit=2"), "query parameter `limit`: it is there more than once");
        assert_eq!(refused("all=maybe"), "query parameter `all`: `maybe` is neither true nor false");
    }
}
