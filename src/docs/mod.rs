//! The documentation: the files of `docs/`, which are compiled into the program.
//!
//! So what a person needs is where the program is, in the version that the program has: without a network, and in an image
//! that has neither a shell nor a pager. A page is a Markdown file in `docs/`; `docs/README.md` is the first, and the
//! order in which it links to the others is their order. This room makes HTML of their text. What stands around it, and
//! whether it is served or written to files, is for others to say, and with it what the links are.

mod markdown;

use std::sync::LazyLock;

pub use markdown::{Section, Target};

/// The name and text of each file, in the order of their names.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/docs.rs"));
/// The name of the first page.
const INDEX: &str = "README";

/// A page of the documentation.
pub struct Page {
    /// Of its file, without the ending; empty for the first page.
    pub name: &'static str,
    pub title: String,
    /// What the first page says of it.
    pub summary: String,
    /// As Markdown.
    pub text: &'static str,
    pub sections: Vec<Section>,
}

impl Page {
    fn new(name: &'static str, text: &'static str, summary: String) -> Self {
        let sections = markdown::sections(text);
        let title = sections.first().map_or(name, |section| &section.title).to_owned();
        Self { name, title, summary, text, sections }
    }

    /// Its text as HTML, with links as `address` has them.
    pub fn html(&self, address: &dyn Fn(Target<'_>) -> String) -> String {
        markdown::html(self.text, address)
    }
}

/// All pages, in the order in which to read them. Those that the first page does not link to come last.
pub fn pages() -> &'static [Page] {
    static PAGES: LazyLock<Vec<Page>> = LazyLock::new(|| {
        let mut files = FILES.to_vec();
        let mut take = |name: &str| {
            let at = files.iter().position(|(file, _)| *file == name)?;
            Some(files.remove(at))
        };
        let (_, index) = take(INDEX).unwrap_or_default();
        let mut pages = vec![Page::new("", index, String::new())];
        for (name, summary) in markdown::list_of_pages(index) {
            pages.extend(take(&name).map(|(name, text)| Page::new(name, text, summary)));
        }
        pages.extend(files.into_iter().map(|(name, text)| Page::new(name, text, String::new())));
        pages
    });
    &PAGES
}

/// The page of this name.
pub fn page(name: &str) -> Option<&'static Page> {
    pages().iter().find(|page| page.name == name)
}
