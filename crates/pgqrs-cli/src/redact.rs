//! Passwords of URLs, which are never printed: not in an error, and not if somebody has put a URL in the wrong place of
//! the command line.

const HIDDEN: &str = "***";

/// A text with the passwords of all URLs in it replaced.
pub(crate) fn without_passwords(text: &str) -> String {
    without_parameter(&without_user_passwords(text))
}

/// `scheme://user:password@host`. A password may contain any character but white space and quotes.
fn without_user_passwords(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        shown += before;
        let end = url.find(ends_url).unwrap_or(url.len());
        let (url, after) = url.split_at(end);
        match url.rsplit_once('@') {
            Some((user, host)) => {
                shown += user.split(':').next().unwrap_or_default();
                if user.contains(':') {
                    shown += ":";
                    shown += HIDDEN;
                }
                shown += "@";
                shown += host;
            }
            None => shown += url,
        }
        rest = after;
    }
    shown + rest
}

/// `?password=…`
fn without_parameter(text: &str) -> String {
    const NAME: &str = "password=";
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(NAME) {
        let (before, value) = rest.split_at(at + NAME.len());
        let end = value.find(|letter| letter == '&' || ends_url(letter));
        shown += before;
        shown += HIDDEN;
        rest = &value[end.unwrap_or(value.len())..];
    }
    shown + rest
}

fn ends_url(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\'' | '"' | '`')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hidden_wherever_a_url_has_it() {
        for (text, shown) in [
            ("postgres://u:secret@h/db", "postgres://u:***@h/db"),
            (
                "at 'postgres://u:se/c@ret@h:5/db'!",
                "at 'postgres://u:***@h:5/db'!",
            ),
            (
                "postgres://h/db?password=secret&a=b",
                "postgres://h/db?password=***&a=b",
            ),
            (
                "a postgres://u@h/db, b x://y:z@w",
                "a postgres://u@h/db, b x://y:***@w",
            ),
            ("postgres://h:5432/db", "postgres://h:5432/db"),
            (
                "postgres://u:se,cret@h:1,i:2/db",
                "postgres://u:***@h:1,i:2/db",
            ),
            ("no url: a@b", "no url: a@b"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
