//! From Markdown to HTML: headings that can be linked to, links that lead to pages, and tables and code that scroll where
//! the screen is narrow.
//!
//! The ids of headings are those that forges give them, so that a link works there as it works here. Nothing inline but
//! text comes out: no markup of the author's, and no style, which the pages' policy would refuse.

use std::collections::BTreeMap;

use pulldown_cmark::{Alignment, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html::push_html};

/// What a link of a page can lead to, within the documentation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target<'a> {
    /// A page, by its name.
    Page(&'a str),
    /// The reference of the API.
    Reference,
}

/// A heading, and what stands below it until the next.
#[derive(Debug, PartialEq)]
pub struct Section {
    pub level: HeadingLevel,
    pub id: String,
    pub title: String,
    /// Without markup.
    pub text: String,
}

/// The file that stands for the reference of the API.
const REFERENCE: &str = "openapi.json";

fn parser(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
}

/// What the pages consist of. The first is the whole page's title.
pub fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut ids = Ids::default();
    let mut in_heading = false;
    for event in parser(text) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                in_heading = true;
                sections.push(Section { level, id: String::new(), title: String::new(), text: String::new() });
            }
            Event::End(TagEnd::Heading(_)) => {
                in_heading = false;
                if let Some(section) = sections.last_mut() {
                    section.id = ids.of(&section.title);
                }
            }
            event => {
                let Some(section) = sections.last_mut() else { continue };
                let text = if in_heading { &mut section.title } else { &mut section.text };
                match event {
                    Event::Text(part) | Event::Code(part) => text.push_str(&part),
                    Event::SoftBreak | Event::HardBreak => text.push(' '),
                    Event::End(TagEnd::Paragraph | TagEnd::Item | TagEnd::TableCell | TagEnd::CodeBlock) => {
                        text.push(' ');
                    }
                    _ => {}
                }
            }
        }
    }
    sections
}

/// The pages that the items of lists begin with links to, and what the items say of them.
pub fn list_of_pages(text: &str) -> Vec<(String, String)> {
    let mut pages = Vec::new();
    let mut item: Option<(Option<String>, String)> = None;
    let mut in_link = false;
    for event in parser(text) {
        match event {
            Event::Start(Tag::Item) => item = Some((None, String::new())),
            Event::End(TagEnd::Item) => {
                if let Some((Some(name), summary)) = item.take() {
                    pages.push((name, summary.trim_start_matches([':', ' ']).to_owned()));
                }
            }
            Event::Start(Tag::Link { dest_url, .. }) => {
                in_link = true;
                if let (Some((page @ None, _)), Some((name, ""))) = (&mut item, dest_url.split_once(".md")) {
                    *page = Some(name.to_owned());
                }
            }
            Event::End(TagEnd::Link) => in_link = false,
            Event::Text(part) | Event::Code(part) if !in_link => {
                if let Some((_, summary)) = &mut item {
                    summary.push_str(&part);
                }
            }
            Event::SoftBreak => {
                if let Some((_, summary)) = &mut item {
                    summary.push(' ');
                }
            }
            _ => {}
        }
    }
    pages
}

/// The text as HTML, with the addresses that `address` has for what its links lead to.
pub fn html(text: &str, address: &dyn Fn(Target<'_>) -> String) -> String {
    let mut ids = sections(text).into_iter().map(|section| section.id);
    let mut table = Table::default();
    let events = parser(text).map(|event| match event {
        Event::Start(Tag::Heading { level, classes, attrs, .. }) => {
            Event::Start(Tag::Heading { level, id: ids.next().map(CowStr::from), classes, attrs })
        }
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            Event::Start(Tag::Link { link_type, dest_url: resolved(&dest_url, address).into(), title, id })
        }
        Event::Start(Tag::CodeBlock(_)) => Event::Html(r#"<pre tabindex="0"><code>"#.into()),
        Event::End(TagEnd::CodeBlock) => Event::Html("</code></pre>\n".into()),
        Event::Html(markup) | Event::InlineHtml(markup) => Event::Text(markup),
        event => match table.html(&event) {
            Some(markup) => Event::Html(markup.into()),
            None => event,
        },
    });
    let mut html = String::with_capacity(text.len() * 3 / 2);
    push_html(&mut html, events);
    html
}

/// A link as it stands in a file, as it is in the site.
fn resolved(link: &str, address: &dyn Fn(Target<'_>) -> String) -> String {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let address = match file.strip_suffix(".md") {
        _ if link.contains("://") => return link.to_owned(),
        Some("README") => address(Target::Page("")),
        Some(page) => address(Target::Page(page)),
        None if file == REFERENCE => address(Target::Reference),
        None => file.to_owned(),
    };
    match anchor {
        Some(anchor) => format!("{address}#{anchor}"),
        None => address,
    }
}

/// The ids of a page's headings, as forges make them.
#[derive(Default)]
struct Ids {
    /// How often each has come up.
    seen: BTreeMap<String, usize>,
}

impl Ids {
    fn of(&mut self, title: &str) -> String {
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let id: String = kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect();
        let seen = self.seen.entry(id.clone()).or_insert(0);
        *seen += 1;
        if *seen == 1 { id } else { format!("{id}-{}", *seen - 1) }
    }
}

/// Writes tables: each in a box that scrolls, with classes where the library would write styles.
#[derive(Default)]
struct Table {
    alignments: Vec<Alignment>,
    in_head: bool,
    cell: usize,
}

impl Table {
    /// The markup for what belongs to a table; None: it does not.
    fn html(&mut self, event: &Event<'_>) -> Option<&'static str> {
        Some(match event {
            Event::Start(Tag::Table(alignments)) => {
                self.alignments.clone_from(alignments);
                "<div class=\"wide\" role=\"region\" aria-label=\"Table\" tabindex=\"0\"><table>"
            }
            Event::End(TagEnd::Table) => "</tbody></table></div>\n",
            Event::Start(Tag::TableHead) => {
                (self.in_head, self.cell) = (true, 0);
                "<thead><tr>"
            }
            Event::End(TagEnd::TableHead) => {
                self.in_head = false;
                "</tr></thead>\n<tbody>"
            }
            Event::Start(Tag::TableRow) => {
                self.cell = 0;
                "<tr>"
            }
            Event::End(TagEnd::TableRow) => "</tr>\n",
            Event::Start(Tag::TableCell) => {
                let is_number = self.alignments.get(self.cell) == Some(&Alignment::Right);
                self.cell += 1;
                match (self.in_head, is_number) {
                    (true, true) => "<th class=\"number\">",
                    (true, false) => "<th>",
                    (false, true) => "<td class=\"number\">",
                    (false, false) => "<td>",
                }
            }
            Event::End(TagEnd::TableCell) if self.in_head => "</th>",
            Event::End(TagEnd::TableCell) => "</td>",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        html(text, &|target| match target {
            Target::Page(name) => format!("/docs/{name}"),
            Target::Reference => "/reference".to_owned(),
        })
    }

    #[test]
    fn links_to_files_become_links_to_pages() {
        let html = shown("[a](project.md) [b](project.md#jobs) [c](#here) [d](openapi.json) [e](https://x.org/a.md)");
        let links: Vec<_> = html.split("href=\"").skip(1).filter_map(|part| part.split('"').next()).collect();
        assert_eq!(links, ["/docs/project", "/docs/project#jobs", "#here", "/reference", "https://x.org/a.md"]);
    }

    #[test]
    fn headings_have_the_ids_that_forges_give_them() {
        let page = "# The `jobs` key\n## Messages: `criteria`\ntext\n## It's a *test*, isn't it?\n## What\n### What\n";
        let sections = sections(page);
        let ids: Vec<_> = sections.iter().map(|section| section.id.as_str()).collect();
        assert_eq!(ids, ["the-jobs-key", "messages-criteria", "its-a-test-isnt-it", "what", "what-1"]);
        assert_eq!((sections[1].title.as_str(), sections[1].text.as_str()), ("Messages: criteria", "text "));
        assert!(shown(page).contains("<h3 id=\"what-1\">What</h3>"), "{}", shown(page));
    }

    #[test]
    fn tables_scroll_and_have_no_styles() {
        let html = shown("| a | b |\n|---|--:|\n| `x` | 1 |\n");
        assert!(html.starts_with("<div class=\"wide\""), "{html}");
        assert!(html.contains("<tr><td><code>x</code></td><td class=\"number\">1</td></tr>"), "{html}");
        assert!(html.contains("<th class=\"number\">b</th></tr></thead>") && !html.contains("style"), "{html}");
    }

    #[test]
    fn markup_is_text() {
        let html = shown("<script>x</script>\n\na <b>c</b> & `<i>`\n\n```\n<u>\n```\n");
        for markup in ["<script>", "<b>", "<i>", "<u>"] {
            assert!(!html.contains(markup), "{html}");
        }
        assert!(html.contains("<pre tabindex=\"0\"><code>&lt;u&gt;\n</code></pre>"), "{html}");
    }

    #[test]
    fn the_list_of_pages_has_what_it_says_of_each() {
        let list = "text [z](z.md)\n\n- [One](one.md): the first,\n  see [two](two.md)\n- none\n- [Two](two.md)\n";
        let pages = list_of_pages(list);
        let expected = [("one", "the first, see "), ("two", "")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(pages, expected);
    }
}
