//! What a name means that a job uses without declaring it.
//!
//! All the lists the compiler lives by are here, each in one place: the global scope of a job, the helpers of adaptors that
//! are no operations, the names people bring along from Node and the browser, and which adaptor a well-known operation is
//! from.

use std::collections::HashMap;

use super::Adaptor;

/// The module that every run provides: it lends a job the few names that adaptors may lack.
pub const RUNTIME: &str = "@openfn/runtime";

/// Operations the runtime provides when no adaptor of the job exports them, so that jobs written for old adaptors work.
const RUNTIME_OPERATIONS: &[&str] = &["alterState", "fn"];

/// The names of the JavaScript language itself, sorted.
pub const LANGUAGE_GLOBALS: &[&str] = &[
    "AggregateError",
    "Array",
    "ArrayBuffer",
    "AsyncDisposableStack",
    "Atomics",
    "BigInt",
    "BigInt64Array",
    "BigUint64Array",
    "Boolean",
    "DataView",
    "Date",
    "DisposableStack",
    "Error",
    "EvalError",
    "FinalizationRegistry",
    "Float16Array",
    "Float32Array",
    "Float64Array",
    "Function",
    "Infinity",
    "Int16Array",
    "Int32Array",
    "Int8Array",
    "Intl",
    "Iterator",
    "JSON",
    "Map",
    "Math",
    "NaN",
    "Number",
    "Object",
    "Promise",
    "Proxy",
    "RangeError",
    "ReferenceError",
    "Reflect",
    "RegExp",
    "Set",
    "SharedArrayBuffer",
    "String",
    "SuppressedError",
    "Symbol",
    "SyntaxError",
    "Temporal",
    "TypeError",
    "URIError",
    "Uint16Array",
    "Uint32Array",
    "Uint8Array",
    "Uint8ClampedArray",
    "WeakMap",
    "WeakRef",
    "WeakSet",
    "decodeURI",
    "decodeURIComponent",
    "encodeURI",
    "encodeURIComponent",
    "escape",
    "eval",
    "globalThis",
    "isFinite",
    "isNaN",
    "parseFloat",
    "parseInt",
    "undefined",
    "unescape",
];

/// What the host adds to the global scope of a job, sorted. The scope a job runs in must offer exactly these.
pub const HOST_GLOBALS: &[&str] = &[
    "AbortController",
    "AbortSignal",
    "Blob",
    "Buffer",
    "CompressionStream",
    "DecompressionStream",
    "Event",
    "EventTarget",
    "File",
    "FormData",
    "Headers",
    "ReadableStream",
    "Request",
    "Response",
    "TextDecoder",
    "TextEncoder",
    "TransformStream",
    "URL",
    "URLSearchParams",
    "WritableStream",
    "atob",
    "btoa",
    "clearInterval",
    "clearTimeout",
    "console",
    "crypto",
    "fetch",
    "performance",
    "queueMicrotask",
    "setInterval",
    "setTimeout",
    "state",
    "structuredClone",
];

/// Functions that adaptors export beside their operations and that take plain values, not functions of the state: the
/// library that all adaptors re-export names them. A lazy `$` in their arguments concerns the operation around them.
const VALUE_HELPERS: &[&str] = &[
    "arrayToString",
    "asData",
    "chunk",
    "composeNextState",
    "dataPath",
    "humanProper",
    "jsonValue",
    "parseDate",
    "referencePath",
    "scrubEmojis",
    "splitKeys",
    "throwError",
    "toArray",
    "toUTF8",
];

/// Namespaces of such functions: dates, lodash, utilities, and the resource builders of the FHIR adaptors.
const VALUE_NAMESPACES: &[&str] = &["_", "b", "builders", "dateFns", "util"];

/// Words that strict code reserves. The parser refuses most uses of them, but not all.
const RESERVED: &[&str] = &[
    "arguments",
    "await",
    "implements",
    "interface",
    "let",
    "package",
    "private",
    "protected",
    "public",
    "static",
    "yield",
];

/// Names that jobs must not use, and what to use instead, sorted.
const UNAVAILABLE: &[(&str, &str)] = &[
    ("Deno", "a job has the web platform's names only, such as fetch and crypto"),
    ("WebAssembly", "code that a job brings along cannot be loaded; use an adaptor"),
    ("XMLHttpRequest", "use an operation of language-http, or fetch"),
    ("__dirname", "a job has no files; read them with an adaptor, or pass their content in the state"),
    ("__filename", "a job has no files; read them with an adaptor, or pass their content in the state"),
    ("document", "a job runs on a server, there is no page"),
    ("exports", "the operations of a job are its export; write `export default [...]` to choose them yourself"),
    ("global", "use globalThis, or better: keep values on the state"),
    ("module", "the operations of a job are its export; write `export default [...]` to choose them yourself"),
    ("process", "settings and secrets come with the credential: state.configuration"),
    ("require", "import from an adaptor instead: import { get } from '@openfn/language-http'"),
    ("setImmediate", "use setTimeout(callback, 0)"),
    ("window", "a job runs on a server, there is no page; globalThis is the global object"),
];

/// Operations so well known that a job which uses them without their adaptor most likely forgot the adaptor.
const WELL_KNOWN: &[(&str, &str)] = &[
    ("bulk", "salesforce"),
    ("bulkQuery", "salesforce"),
    ("collections", "collections"),
    ("combine", "common"),
    ("create", "salesforce"),
    ("createTEI", "dhis2"),
    ("cursor", "common"),
    ("dataPath", "common"),
    ("dataValue", "common"),
    ("dateFns", "common"),
    ("del", "http"),
    ("each", "common"),
    ("field", "common"),
    ("fields", "common"),
    ("findValue", "postgresql"),
    ("fnIf", "common"),
    ("get", "http"),
    ("getValues", "googlesheets"),
    ("insert", "postgresql"),
    ("insertMany", "postgresql"),
    ("lastReferenceValue", "common"),
    ("merge", "common"),
    ("parseCsv", "common"),
    ("patch", "http"),
    ("post", "http"),
    ("put", "http"),
    ("query", "salesforce"),
    ("request", "http"),
    ("sendMessage", "gmail"),
    ("sourceValue", "common"),
    ("sql", "postgresql"),
    ("submitXls", "commcare"),
    ("upsert", "salesforce"),
    ("upsertMany", "postgresql"),
    ("upsertTEI", "dhis2"),
];

/// What an undeclared name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An export of the adaptor with this index; assumed to be one if that adaptor's exports are unknown.
    Adaptor(usize),
    /// An operation that the runtime lends.
    Runtime,
    /// A name of the global scope.
    Global,
    /// A name that the host defines for this job: helpers of the workflow, most likely.
    Extra,
    /// A name people expect, that jobs do not get; with the way out.
    Unavailable(&'static str),
    Nothing,
}

/// The names one compilation knows.
pub(super) struct Vocabulary<'a> {
    adaptors: &'a [Adaptor<'a>],
    exports: HashMap<&'a str, usize>,
    /// The first adaptor whose exports are not known.
    unknown: Option<usize>,
    extra_globals: &'a [&'a str],
}

impl<'a> Vocabulary<'a> {
    pub(super) fn new(adaptors: &'a [Adaptor<'a>], extra_globals: &'a [&'a str]) -> Self {
        let mut exports = HashMap::new();
        for (index, adaptor) in adaptors.iter().enumerate() {
            for name in adaptor.exports.unwrap_or_default() {
                exports.entry(name.as_str()).or_insert(index);
            }
        }
        Self {
            adaptors,
            exports,
            unknown: adaptors.iter().position(|adaptor| adaptor.exports.is_none()),
            extra_globals,
        }
    }

    pub(super) fn adaptors(&self) -> &'a [Adaptor<'a>] {
        self.adaptors
    }

    pub(super) fn meaning(&self, name: &str) -> Meaning {
        if let Some(&index) = self.exports.get(name) {
            Meaning::Adaptor(index)
        } else if self.extra_globals.contains(&name) {
            Meaning::Extra
        } else if is_global(name) {
            Meaning::Global
        } else if let Ok(index) = UNAVAILABLE.binary_search_by_key(&name, |(name, _)| name) {
            Meaning::Unavailable(UNAVAILABLE[index].1)
        } else if let Some(index) = self.unknown {
            Meaning::Adaptor(index)
        } else if RUNTIME_OPERATIONS.contains(&name) {
            Meaning::Runtime
        } else {
            Meaning::Nothing
        }
    }

    /// Whether calling this undeclared name makes an operation, so that its arguments may be functions of the state.
    ///
    /// A name without any meaning counts: the job will be refused for it, and must not be refused for a lazy `$` as well.
    pub(super) fn makes_operation(&self, name: &str) -> bool {
        match self.meaning(name) {
            Meaning::Adaptor(_) | Meaning::Runtime | Meaning::Nothing => !is_value_helper(name),
            Meaning::Global | Meaning::Extra | Meaning::Unavailable(_) => false,
        }
    }

    /// Whether a module specifier is one of the adaptors, under whatever name the host gave it.
    pub(super) fn is_adaptor(&self, specifier: &str) -> bool {
        specifier.starts_with("@openfn/") || self.adaptors.iter().any(|adaptor| adaptor.specifier == specifier)
    }

    /// All names a job could have meant.
    pub(super) fn known_names(&self) -> impl Iterator<Item = &str> {
        // In the order of the adaptors, not of the map: equally near names must always be offered in the same order.
        let exports = self.adaptors.iter().flat_map(|adaptor| adaptor.exports.unwrap_or_default());
        exports
            .map(String::as_str)
            .chain(RUNTIME_OPERATIONS.iter().copied())
            .chain(self.extra_globals.iter().copied())
            .chain(HOST_GLOBALS.iter().copied())
            .chain(LANGUAGE_GLOBALS.iter().copied())
    }
}

/// Whether a name belongs to the global scope of every job.
pub fn is_global(name: &str) -> bool {
    LANGUAGE_GLOBALS.binary_search(&name).is_ok() || HOST_GLOBALS.binary_search(&name).is_ok()
}

/// Whether a name can be no variable in a module.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// Whether a name of an adaptor is a plain function, or a namespace of plain functions.
pub(super) fn is_value_helper(name: &str) -> bool {
    VALUE_HELPERS.contains(&name) || VALUE_NAMESPACES.contains(&name)
}

/// The adaptor (without its `@openfn/language-`) that a well-known operation is from.
pub(super) fn well_known_adaptor(name: &str) -> Option<&'static str> {
    let index = WELL_KNOWN.binary_search_by_key(&name, |(name, _)| name).ok()?;
    Some(WELL_KNOWN[index].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searched_lists_are_sorted() {
        assert!(LANGUAGE_GLOBALS.is_sorted());
        assert!(HOST_GLOBALS.is_sorted());
        assert!(UNAVAILABLE.is_sorted_by_key(|(name, _)| *name));
        assert!(WELL_KNOWN.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn known_exports_win_over_everything_and_unknown_ones_only_fill_gaps() {
        let exports = ["fetch".to_owned()];
        let adaptors = [Adaptor { specifier: "a", exports: None }, Adaptor { specifier: "b", exports: Some(&exports) }];
        let vocabulary = Vocabulary::new(&adaptors, &["shared"]);
        assert_eq!(vocabulary.meaning("fetch"), Meaning::Adaptor(1));
        assert_eq!(vocabulary.meaning("console"), Meaning::Global);
        assert_eq!(vocabulary.meaning("shared"), Meaning::Extra);
        assert_eq!(vocabulary.meaning("anything"), Meaning::Adaptor(0));
        assert!(matches!(vocabulary.meaning("process"), Meaning::Unavailable(_)));
    }

    #[test]
    fn the_runtime_lends_what_no_adaptor_exports() {
        let exports = ["fn".to_owned()];
        let adaptors = [Adaptor { specifier: "a", exports: Some(&exports) }];
        let vocabulary = Vocabulary::new(&adaptors, &[]);
        assert_eq!(vocabulary.meaning("fn"), Meaning::Adaptor(0));
        assert_eq!(vocabulary.meaning("alterState"), Meaning::Runtime);
        assert_eq!(vocabulary.meaning("each"), Meaning::Nothing);
    }
}
