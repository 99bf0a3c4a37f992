//! Sentences in comments and documents.

/// Every sentence, with the line that it begins in.
pub(super) fn sentences(shown: &str, text: &str) -> Vec<(usize, String)> {
    let lines: Vec<(usize, Line<'_>)> = match shown.rsplit('.').next() {
        Some("md") => markdown(text),
        Some("toml") => comments(text, &["#"]),
        _ => comments(text, &["//!", "///", "//"]),
    };
    let mut found = Vec::new();
    let mut paragraph: Vec<(usize, &str)> = Vec::new();
    for (number, line) in lines {
        match line {
            Line::Goes(text) => paragraph.push((number, text)),
            Line::Begins(text) => {
                cut(&mut paragraph, &mut found);
                paragraph.push((number, text));
            }
            Line::Cells(text) => {
                cut(&mut paragraph, &mut found);
                for cell in text.split('|') {
                    paragraph.push((number, cell.trim()));
                    cut(&mut paragraph, &mut found);
                }
            }
            Line::Ends => cut(&mut paragraph, &mut found),
        }
    }
    cut(&mut paragraph, &mut found);
    found
}

/// The lines of a document whose width counts: no table, no code, no link that cannot break.
pub(super) fn document_lines(text: &str) -> Vec<(usize, &str)> {
    let mut code = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let begun = line.trim_start();
        if begun.starts_with("```") {
            code = !code;
        } else if !code && !begun.starts_with('|') && begun.contains(' ') {
            found.push((index + 1, line));
        }
    }
    found
}

enum Line<'t> {
    /// The paragraph goes on, or begins after an end.
    Goes(&'t str),
    /// Another paragraph begins: an item of a list.
    Begins(&'t str),
    /// A row of a table.
    Cells(&'t str),
    /// Nothing, code or a heading.
    Ends,
}

fn markdown(text: &str) -> Vec<(usize, Line<'_>)> {
    let mut code = false;
    let lines = text.lines().enumerate().map(|(index, line)| {
        let begun = line.trim();
        let kind = if begun.starts_with("```") {
            code = !code;
            Line::Ends
        } else if code {
            Line::Ends
        } else {
            paragraph(begun)
        };
        (index + 1, kind)
    });
    lines.collect()
}

/// Comments that begin with one of these marks. A comment behind code is left out.
fn comments<'t>(text: &'t str, marks: &[&str]) -> Vec<(usize, Line<'t>)> {
    let mut code = false;
    let lines = text.lines().enumerate().map(|(index, line)| {
        let begun = line.trim();
        let comment = marks.iter().find_map(|mark| begun.strip_prefix(mark)).map(str::trim);
        let kind = match comment {
            None => Line::Ends,
            Some(comment) if comment.starts_with("```") => {
                code = !code;
                Line::Ends
            }
            Some(_) if code => Line::Ends,
            Some(comment) => paragraph(comment),
        };
        (index + 1, kind)
    });
    lines.collect()
}

fn paragraph(line: &str) -> Line<'_> {
    let item = ["- ", "* "].iter().find_map(|mark| line.strip_prefix(mark));
    let number = line.split_once(". ").filter(|(number, _)| number.parse::<u32>().is_ok());
    match (item, number) {
        _ if line.is_empty() || line.starts_with('#') => Line::Ends,
        _ if line.starts_with('|') => Line::Cells(line),
        (Some(rest), _) | (None, Some((_, rest))) => Line::Begins(rest),
        (None, None) => Line::Goes(line),
    }
}

/// Cuts a paragraph into sentences, and empties it.
fn cut(paragraph: &mut Vec<(usize, &str)>, found: &mut Vec<(usize, String)>) {
    let mut sentence: Option<(usize, String)> = None;
    for (number, line) in paragraph.drain(..) {
        for word in line.split_whitespace() {
            let (_, text) = sentence.get_or_insert_with(|| (number, String::new()));
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word);
            // Brackets, quotes and emphasis may close behind the stop.
            if word.trim_end_matches(['"', '\'', '`', ')', '*', '_']).ends_with(['.', '?', '!']) {
                found.extend(sentence.take());
            }
        }
    }
    found.extend(sentence);
}
