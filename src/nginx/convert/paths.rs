//! Where relative paths of an nginx file begin.

use std::path::{Component, Path, PathBuf};

/// nginx's prefix for a file, if nobody says which: packages have `/usr/share/nginx` for `/etc/nginx`; a
/// build of one's own has `conf/nginx.conf` in it.
pub fn usual_prefix(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if whole.starts_with("/etc/nginx") {
        return PathBuf::from("/usr/share/nginx");
    }
    let folder = whole.parent().unwrap_or(Path::new("/"));
    match folder.file_name() {
        Some(name) if name == "conf" => folder.parent().unwrap_or(folder).to_owned(),
        _ => folder.to_owned(),
    }
}

/// A whole path for one that may be relative. Paths that begin with a variable are whole already.
pub fn whole(path: &str, folder: &Path) -> String {
    if path.starts_with(['/', '$']) {
        return path.to_owned();
    }
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let mut whole = folder;
    let (names, rest) = match path.split_once('$') {
        // `..` behind a variable cannot be resolved here.
        Some((before, _)) => path.split_at(before.rfind('/').map_or(0, |slash| slash + 1)),
        None => (path, ""),
    };
    for part in Path::new(names).components() {
        match part {
            Component::ParentDir => drop(whole.pop()),
            Component::Normal(name) => whole.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    let slash = if names.ends_with('/') || !rest.is_empty() { "/" } else { "" };
    let folder = whole.display().to_string();
    format!("{}{slash}{rest}", if slash.is_empty() { folder.as_str() } else { folder.trim_end_matches('/') })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_begin_at_the_prefix() {
        for (path, expected) in [
            ("html", "/usr/share/nginx/html"),
            ("html/", "/usr/share/nginx/html/"),
            ("/srv", "/srv"),
            ("../x/./y", "/usr/share/x/y"),
            ("sites/$host/www", "/usr/share/nginx/sites/$host/www"),
            ("$root/x", "$root/x"),
            ("a$b", "/usr/share/nginx/a$b"),
        ] {
            assert_eq!(whole(path, Path::new("/usr/share/nginx")), expected);
        }
    }

    #[test]
    fn the_prefix_is_where_a_package_or_a_build_has_it() {
        for (file, prefix) in [
            ("/etc/nginx/sites-enabled/app", "/usr/share/nginx"),
            ("/usr/local/nginx/conf/nginx.conf", "/usr/local/nginx"),
            ("/home/me/site.conf", "/home/me"),
        ] {
            assert_eq!(usual_prefix(Path::new(file)), Path::new(prefix));
        }
    }
}
