//! What a user can see, through the real program: one file per behaviour, all in one test binary because linking V8
//! and Deno's runtime once is enough.

mod adaptors;
mod api;
mod browser;
mod check;
mod cli;
mod clock;
mod compile;
mod connections;
mod cron;
mod disk;
mod durability;
mod errors;
mod execute;
mod flows;
mod hostile;
mod http;
mod inbox;
mod install;
mod intercept;
mod isolation;
mod limits;
mod metrics;
mod packs;
mod pages;
mod reload;
mod retries;
mod run;
mod secrets;
mod server;
mod support;
mod tokens;
mod tracing;
mod v8_archive;
mod versions;
mod webhook;
