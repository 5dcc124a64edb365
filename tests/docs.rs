//! The pages of the documentation lead to files and headings that are there.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = pages(root);
    assert!(pages.len() > 15, "{pages:?}");
    let mut broken = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let is_there = target.exists()
                && (heading.is_empty() || headings(&target).iter().any(|there| there == heading));
            if !is_there {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The readme, the folder `docs`, and the readmes of the examples.
fn pages(root: &Path) -> Vec<PathBuf> {
    let inside = |folder: &str| fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let examples = inside("examples").map(|folder| folder.join("README.md"));
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let all = inside("docs").filter(is_page).chain(examples);
    all.chain([root.join("README.md")]).collect()
}

/// What stands in `](…)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0))
}

/// The anchors of a page, as GitHub makes them of its headings.
fn headings(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let outside_of_code = text.split("```").step_by(2).flat_map(str::lines);
    let titles = outside_of_code.filter_map(|line| {
        line.strip_prefix('#').map(|rest| rest.trim_start_matches('#').trim().to_lowercase())
    });
    titles
        .map(|title| {
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}
