//! Memory of a server that has nothing to do.

use std::fmt::Write as _;

use crate::goals::{Bound, Goals};
use crate::project::{Bench, project};

pub async fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let one_set = project("retry: false", "{}");
    let three_sets = "jobs:
  a: {adaptor: common, trigger: all, expression: fn(state => state)}
  b: {adaptor: http, trigger: all, expression: fn(state => state)}
  c: {adaptors: [common, http], trigger: all, expression: 'export default [state => state]'}
triggers:
  all: {criteria: {}}
";
    let idle = bench.idle(&one_set, 4, 1).await;
    // Packs are made once: that memory is not the isolates'.
    bench.idle(three_sets, 3, 3).await;
    let (bare, full) = (bench.idle(three_sets, 0, 0).await, bench.idle(three_sets, 3, 3).await);
    goals.add("idle server, MB", Bound::AtMost(80.0), idle);
    let mut table = String::from(
        "## Memory\n\nResident memory of a server that has started and has nothing to do. The spares of the last row are of \
         three sets of adaptors: language-common, language-http, and both.\n\n\
         | | MB |\n|---|---|\n",
    );
    let _ = writeln!(
        table,
        "| language-common, as set by default: one isolate ready | {idle:.0} |\n\
         | language-common and language-http, no isolate ready | {bare:.0} |\n\
         | the same, 3 isolates ready | {full:.0} |\n\
         | each isolate | {:.1} |\n",
        (full - bare) / 3.0,
    );
    table
}
