//! A reader for the parts of Markdown that the documents use: links, definitions, headings and blocks of code.

use std::collections::BTreeSet;

/// A link, an image or a definition.
#[derive(Debug, PartialEq)]
pub(crate) enum Link {
    /// `[label]: target` on a line of its own.
    Definition { label: String, target: String },
    /// `[text](target)`.
    Inline { target: String },
    /// `[text][label]`, `[label][]` or `[label]`. The last form is a link only if the label is defined.
    Reference { label: String, shortcut: bool },
}

/// A fenced block of code: the word after the fence, and the lines.
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) lines: Vec<String>,
}

/// The parts of a page. Each link has its line number.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) links: Vec<(usize, Link)>,
    pub(crate) anchors: BTreeSet<String>,
    pub(crate) blocks: Vec<Block>,
}

impl Page {
    pub(crate) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut prose = String::new();
        let mut fence: Option<(String, Block)> = None;
        for (index, line) in text.lines().enumerate() {
            let trimmed = line.trim_start();
            match &mut fence {
                Some((end, _)) if trimmed.starts_with(&**end) => {
                    page.blocks.extend(fence.take().map(|(_, block)| block))
                }
                Some((_, block)) => block.lines.push(line.to_owned()),
                None if trimmed.starts_with("```") => {
                    let (end, language) = trimmed.split_at(trimmed.len() - trimmed.trim_start_matches('`').len());
                    let language = language.trim().to_owned();
                    fence = Some((end.to_owned(), Block { line: index + 1, language, lines: Vec::new() }));
                }
                None => {
                    page.heading(line);
                    prose.push_str(line);
                }
            }
            prose.push('\n');
        }
        page.scan(&without_code(&prose));
        page
    }

    /// Returns the target that the first definition of this label has.
    pub(crate) fn definition(&self, label: &str) -> Option<&str> {
        self.definitions().find(|(defined, _)| defined.to_lowercase() == label.to_lowercase()).map(|(_, target)| target)
    }

    /// Returns the labels and targets of all definitions.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.links.iter().filter_map(|(_, link)| match link {
            Link::Definition { label, target } => Some((&**label, &**target)),
            _ => None,
        })
    }

    /// Adds the anchor of a heading. GitHub and rustdoc derive the same anchors from the headings of these documents.
    fn heading(&mut self, line: &str) {
        let text = line.trim_start_matches('#');
        if !(1..=6).contains(&(line.len() - text.len())) || !text.starts_with(' ') {
            return;
        }
        let kept = text.trim().chars().filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let repeated = (1..).map(|number| format!("{anchor}-{number}"));
        let free = [anchor.clone()].into_iter().chain(repeated).find(|anchor| !self.anchors.contains(anchor));
        self.anchors.extend(free);
    }

    fn scan(&mut self, prose: &str) {
        for (at, _) in prose.match_indices('[') {
            let escaped = prose[..at].ends_with('\\');
            let Some(length) = closing(&prose[at..], '[', ']').filter(|_| !escaped) else { continue };
            let (text, after) = (prose[at + 1..at + length].to_owned(), &prose[at + length + 1..]);
            let line_start = prose[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let link = match after.chars().next() {
                // The second half of `[text][label]`.
                _ if prose[..at].ends_with(']') => continue,
                Some(':') if prose[line_start..at].trim().is_empty() && is_target(after) => {
                    let target = after[1..].lines().next().unwrap_or_default().trim();
                    Link::Definition { label: text, target: target.to_owned() }
                }
                Some('(') => {
                    let Some(end) = closing(after, '(', ')') else { continue };
                    Link::Inline { target: after[1..end].to_owned() }
                }
                Some('[') => {
                    let Some(end) = closing(after, '[', ']') else { continue };
                    let label = if end == 1 { text } else { after[1..end].to_owned() };
                    Link::Reference { label, shortcut: false }
                }
                _ => Link::Reference { label: text, shortcut: true },
            };
            self.links.push((prose[..at].matches('\n').count() + 1, link));
        }
    }
}

/// Returns true if the rest of this line is a colon and one word, as in a definition.
fn is_target(after: &str) -> bool {
    after[1..].lines().next().is_some_and(|rest| rest.split_whitespace().count() == 1)
}

/// Returns the index of the bracket that closes the first one, if it is in the same paragraph.
fn closing(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0_usize;
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    for (index, c) in paragraph.char_indices() {
        depth = if c == open { depth + 1 } else { depth - usize::from(c == close) };
        if depth == 0 {
            return Some(index);
        }
    }
    None
}

/// Replaces the brackets in spans of code, which begin no link.
fn without_code(prose: &str) -> String {
    let mut out = String::with_capacity(prose.len());
    let mut rest = prose;
    while let Some(at) = rest.find('`') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let ticks = from.len() - from.trim_start_matches('`').len();
        let paragraph = from.split("\n\n").next().unwrap_or_default();
        let end = (ticks..paragraph.len()).find(|&index| {
            let run = paragraph.get(index..).map_or(0, |text| text.len() - text.trim_start_matches('`').len());
            run == ticks && !paragraph[..index].ends_with('`')
        });
        let length = end.map_or(ticks, |end| end + ticks);
        out.push_str(&from[..length].replace('[', "⟦").replace(']', "⟧"));
        rest = &from[length..];
    }
    out + rest
}

#[test]
fn reads_links_definitions_headings_and_code() {
    let page = Page::parse(
        "# The `name` of a Pod\n\n[a](b.md#c) and [`d`], `[e](f)`, [text][g]\n![image](h.svg): x\n\n\
         ```no_run\n[i](j)\n# hidden\n```\n\n## Twice\n## Twice\n\n[`d`]: d.rs\n[k]: two words\n",
    );
    let reference = |label: &str, shortcut| Link::Reference { label: label.to_owned(), shortcut };
    let inline = |target: &str| Link::Inline { target: target.to_owned() };
    let expected = [
        (3, inline("b.md#c")),
        (3, reference("`d`", true)),
        (3, reference("g", false)),
        (4, inline("h.svg")),
        (14, Link::Definition { label: "`d`".to_owned(), target: "d.rs".to_owned() }),
        (15, reference("k", true)),
    ];
    assert_eq!(page.links, expected);
    assert_eq!(page.anchors.iter().collect::<Vec<_>>(), ["the-name-of-a-pod", "twice", "twice-1"]);
    assert_eq!((&*page.blocks[0].language, &page.blocks[0].lines[1..]), ("no_run", &["# hidden".to_owned()][..]));
    assert_eq!((page.definition("`D`"), page.definition("k")), (Some("d.rs"), None));
}
