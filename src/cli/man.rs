//! `hopgate man`: the manual pages, made of what `--help` says.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, DEFAULT_FILE, EXIT_CONFIG, EXIT_DONE, ManArgs};

/// What there is a page of, beside hopgate itself: every command but `help`.
pub const COMMANDS: [&str; 8] = ["run", "check", "health", "explain", "import", "demo", "completions", "man"];

/// Prints a page, or writes them all.
pub fn man(args: &ManArgs) -> u8 {
    let done = match &args.output {
        Some(dir) => write_all(dir).map_err(|error| format!("{}: {error}", dir.display())),
        None => print(args.command.as_deref()).map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => EXIT_DONE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "hopgate: cannot write manual pages: {error}");
            EXIT_CONFIG
        }
    }
}

fn print(command: Option<&str>) -> io::Result<()> {
    for (name, page) in pages()? {
        if name.strip_prefix("hopgate-") == command {
            // Whoever reads it may have seen enough.
            let _ = io::stdout().write_all(&page);
        }
    }
    Ok(())
}

fn write_all(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    pages()?.into_iter().try_for_each(|(name, page)| fs::write(dir.join(format!("{name}.1")), page))
}

/// Every page with its name: that of hopgate first, then one for each command.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    // Without `help`, which is a page about pages.
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let mut pages = vec![("hopgate".to_owned(), page(&cli)?)];
    for command in cli.get_subcommands() {
        pages.push((format!("hopgate-{}", command.get_name()), page(command)?));
    }
    Ok(pages)
}

fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    // A date that is empty would not be written at all, and what follows be taken for it.
    let man = Man::new(command.clone())
        .date(" ")
        .source(concat!("hopgate ", env!("CARGO_PKG_VERSION")))
        .manual("hopgate");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis(command).to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    examples(&mut rest, &after);
    files(&mut rest, command);
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// The usage as `--help` says it: that of clap_mangen has no values, and `hopgate-run` for `hopgate run`.
fn synopsis(command: &clap::Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]).text([roman(usage.trim_start_matches("Usage: "))]);
    synopsis
}

/// What stands below the options in `--help`: a heading and lines that are to stay as they are, each time.
fn examples(page: &mut Roff, text: &str) {
    for paragraph in text.split("\n\n") {
        let (heading, lines) = match paragraph.split_once('\n') {
            Some((heading, lines)) if heading.ends_with(':') => (heading, lines),
            _ => continue,
        };
        // As man-pages(7) calls it.
        let heading = heading.trim_end_matches(':').to_uppercase().replace("EXIT CODES", "EXIT STATUS");
        page.control("SH", [&*heading]).control("nf", []);
        for line in lines.lines() {
            page.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        page.control("fi", []);
    }
}

fn files(page: &mut Roff, command: &clap::Command) {
    let (has_file, is_main) =
        (command.get_arguments().any(|argument| argument.get_id() == "config"), command.has_subcommands());
    if has_file || is_main {
        page.control("SH", ["FILES"]).control("TP", []).text([bold(DEFAULT_FILE)]);
        page.text([roman("The configuration, if no other is named.")]);
    }
    page.control("SH", ["SEE ALSO"]);
    match is_main {
        true => page.text([
            roman("Each command has a page of its own, such as "),
            bold("hopgate-run"),
            roman("(1)."),
        ]),
        false => page.text([bold("hopgate"), roman("(1)")]),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options_and_examples() {
        let pages = pages().unwrap();
        let names: Vec<_> = pages.iter().filter_map(|(name, _)| name.strip_prefix("hopgate-")).collect();
        assert_eq!(names, COMMANDS);
        for (name, page) in &pages {
            let page = String::from_utf8(page.clone()).unwrap();
            assert!(page.contains(&format!("\n.TH {name} 1 \" \" ")), "{page}");
            let usage =
                format!("\n.SH SYNOPSIS\n{} ", name.replace("hopgate-", "hopgate ").replace('-', "\\-"));
            assert!(page.contains(&usage), "{page}");
            // Programs that read it without man(1), which knows UTF-8, take it for Latin 1.
            assert!(page.is_ascii(), "{page}");
            assert!(page.contains("\n.SH OPTIONS\n") && page.contains("\n.SH EXAMPLES\n.nf\n"), "{page}");
        }
    }
}
