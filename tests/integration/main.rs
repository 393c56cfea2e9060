//! All integration tests in one program: linking V8 and Deno's runtime once is enough. One file per behaviour.

mod v8_archive;
