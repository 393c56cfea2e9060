//! What a user can see, through the real program: one file per behaviour, all in one test binary because linking V8
//! and Deno's runtime once is enough.

mod compile;
mod install;
mod v8_archive;
