//! Texts that are nearly right, made of texts that are: cut, doubled, spliced and sprinkled with tokens. The same numbers
//! make the same texts, so whatever is found can be found again.

use std::ops::Range;

/// A small generator of numbers that look random.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds would begin alike.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.roll(from.len())]
    }

    fn place(&mut self, text: &str) -> usize {
        text.floor_char_boundary(self.roll(text.len() + 1))
    }

    fn stretch(&mut self, text: &str) -> Range<usize> {
        let from = self.place(text);
        from..text.floor_char_boundary((from + self.roll(60)).min(text.len()))
    }
}

/// `text` after a few mutations, with parts of `other` and some of `tokens` in it.
pub fn mutated(dice: &mut Dice, text: &str, other: &str, tokens: &[&str]) -> String {
    let mut text = text.to_owned();
    for _ in 0..=dice.roll(3) {
        match dice.roll(6) {
            0 => text.truncate(dice.place(&text)),
            1 => text.replace_range(..dice.place(&text), ""),
            2 => text.replace_range(dice.stretch(&text), ""),
            3 => text.insert_str(dice.place(&text), dice.pick(tokens)),
            4 => {
                let again = text[dice.stretch(&text)].to_owned();
                text.insert_str(dice.place(&text), &again);
            }
            _ => text.insert_str(dice.place(&text), &other[dice.stretch(other)]),
        }
    }
    text
}

/// What JavaScript and TypeScript are made of.
pub const JAVASCRIPT: &[&str] = &[
    "$",
    "$.a",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ";",
    ",",
    "`",
    "${",
    "'",
    "/",
    "//",
    "/*",
    "*/",
    ".",
    "?.",
    "...",
    "=>",
    "=",
    ".then(",
    ".catch(",
    ".catch(e => e)",
    "await ",
    "async ",
    "return ",
    "export default ",
    "export default [",
    "import x from 'y';",
    "fn(",
    "get($.x)",
    "state => ",
    "function f() {",
    "class A {",
    "\n",
    "\r\n",
    "\u{2028}",
    "\u{feff}",
    "é",
    "😀",
    "#!",
    "let ",
    "var $;",
    "console.log(1)",
    "typeof ",
    "yield ",
    "new ",
    "delete ",
    "label:",
    "<T>",
    ": string",
    "as any",
    "!",
    "@",
    "\\",
    "\0",
];
