//! Which messages a trigger is for.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A pattern that a message's data is held against.
///
/// The data matches if it contains the pattern: an object contains every key of the pattern, each with a value that
/// contains the pattern's; an array contains, for every item of the pattern, an item that contains it; everything else
/// is equal, numbers by value. An empty pattern matches every object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Criteria(pub Map<String, Value>);

impl Criteria {
    pub fn matches(&self, data: &Value) -> bool {
        data.as_object().is_some_and(|data| object_contains(data, &self.0))
    }
}

fn object_contains(whole: &Map<String, Value>, part: &Map<String, Value>) -> bool {
    part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part)))
}

fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => object_contains(whole, part),
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|part| whole.iter().any(|whole| contains(whole, part)))
        }
        (Value::Number(whole), Value::Number(part)) => whole == part || whole.as_f64() == part.as_f64(),
        _ => whole == part,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(criteria: Value, data: Value) -> bool {
        serde_json::from_value::<Criteria>(criteria).unwrap().matches(&data)
    }

    #[test]
    fn the_data_must_contain_the_pattern() {
        for (criteria, data) in [
            (json!({}), json!({})),
            (json!({}), json!({ "a": 1 })),
            (json!({ "a": 1 }), json!({ "a": 1.0, "b": 2 })),
            (json!({ "a": { "b": 1 } }), json!({ "a": { "b": 1, "c": 2 } })),
            (json!({ "a": [{ "b": 1 }] }), json!({ "a": [0, { "b": 1, "c": 2 }] })),
            (json!({ "a": [] }), json!({ "a": [1] })),
            (json!({ "a": null }), json!({ "a": null })),
            (json!({ "a.b": "x y" }), json!({ "a.b": "x y" })),
        ] {
            assert!(matches(criteria.clone(), data.clone()), "{criteria} {data}");
        }
        for (criteria, data) in [
            (json!({}), json!([])),
            (json!({}), json!("text")),
            (json!({ "a": 1 }), json!({ "a": "1" })),
            (json!({ "a": 1, "b": 2 }), json!({ "a": 1 })),
            (json!({ "a": null }), json!({})),
            (json!({ "a": { "b": 1 } }), json!({ "a": { "c": 1 } })),
            (json!({ "a": [1, 2] }), json!({ "a": [1] })),
            (json!({ "a.b": 1 }), json!({ "a": { "b": 1 } })),
        ] {
            assert!(!matches(criteria.clone(), data.clone()), "{criteria} {data}");
        }
    }
}
