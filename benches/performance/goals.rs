//! What was to be reached, and what was.

use std::fmt::Write as _;

/// In the order in which they were measured.
#[derive(Default)]
pub struct Goals(Vec<Goal>);

struct Goal {
    what: String,
    peer: String,
    bound: Bound,
    reached: f64,
}

/// What a figure has to be.
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn is_met_by(&self, reached: f64) -> bool {
        match *self {
            Self::AtLeast(goal) => reached >= goal,
            Self::AtMost(goal) => reached <= goal,
        }
    }
}

impl Goals {
    /// A goal that is a figure by itself.
    pub fn add(&mut self, what: &str, bound: Bound, reached: f64) {
        self.add_beside(what, "", bound, reached);
    }

    /// A goal that follows from what `peer` reached, which says so.
    pub fn add_beside(&mut self, what: &str, peer: &str, bound: Bound, reached: f64) {
        self.0.push(Goal { what: what.to_owned(), peer: peer.to_owned(), bound, reached });
    }

    /// A section of the page.
    pub fn table(&self) -> String {
        let mut table = String::from("## Goals\n\n| | peer | goal | reached | |\n|---|---|---|---|---|\n");
        for Goal { what, peer, bound, reached } in &self.0 {
            let goal = match *bound {
                Bound::AtLeast(goal) => format!("≥ {}", figure(goal)),
                Bound::AtMost(goal) => format!("≤ {}", figure(goal)),
            };
            let met = if bound.is_met_by(*reached) { "met" } else { "missed" };
            let _ = writeln!(table, "| {what} | {peer} | {goal} | {} | {met} |", figure(*reached));
        }
        table.push('\n');
        table
    }
}

/// A number with as many digits as say something.
pub fn figure(number: f64) -> String {
    match number.abs() {
        large if large >= 100.0 => thousands(number),
        middle if middle >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}
