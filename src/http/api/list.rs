//! Lists, a page at a time.

use std::fmt::Display;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::store::Page;

/// A page of a list, the newest first.
#[derive(Serialize, ToSchema)]
pub struct List<T> {
    data: Vec<T>,
    /// Give this as `after` to get the next page. `null`: this was the last one. A page may have fewer items than asked
    /// for and still not be the last.
    next: Option<String>,
}

impl<T> List<T> {
    pub fn of<Item, Id: Display>(page: Page<Item, Id>) -> Self
    where
        T: From<Item>,
    {
        Self { data: page.items.into_iter().map(T::from).collect(), next: page.next.map(|id| id.to_string()) }
    }

    /// A list that has only one page.
    pub fn whole(data: Vec<T>) -> Self {
        Self { data, next: None }
    }
}

/// JSON text as it is: numbers of any size pass unread.
pub fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|error| {
        let text = serde_json::Value::from(error.to_string()).to_string();
        RawValue::from_string(text).expect("a string that serde_json wrote is JSON")
    })
}
