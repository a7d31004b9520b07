//! Lists of tags, `v=DKIM1; k=rsa; p=…` (RFC 6376 §3.2), as DKIM and DMARC records have them.

/// The tags in order; names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags(Vec<(String, String)>);

impl Tags {
    /// Reads a record. `Err` says what is wrong, in the words of the record: to be escaped where it is shown.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tags: Vec<(String, String)> = Vec::new();
        let text = text.trim_end();
        for part in text.strip_suffix(';').unwrap_or(text).split(';') {
            let Some((name, value)) = part.split_once('=') else {
                return Err(format!("\"{}\" is no tag of the form name=value", part.trim()));
            };
            let name = name.trim().to_ascii_lowercase();
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(format!("\"{}\" is no name of a tag", name));
            }
            if tags.iter().any(|(other, _)| *other == name) {
                return Err(format!("the tag {name}= stands twice"));
            }
            tags.push((name, value.trim().to_owned()));
        }
        Ok(Self(tags))
    }

    /// The value of a tag, trimmed.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The elements of a list with colons between.
    pub fn list(&self, name: &str) -> Option<Vec<&str>> {
        Some(self.get(name)?.split(':').map(str::trim).collect())
    }

    /// The name of the first tag.
    pub fn first_name(&self) -> Option<&str> {
        self.0.first().map(|(name, _)| name.as_str())
    }

    /// The same with this tag changed, or added at the end.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        match self.0.iter_mut().find(|(own, _)| own == name) {
            Some((_, own)) => *own = value.to_owned(),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
        self
    }
}

impl std::fmt::Display for Tags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tags: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&tags.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_and_written() {
        let tags = Tags::parse("v=DMARC1;p = none ; rua=mailto:a@b.test;").unwrap();
        assert_eq!((tags.get("v"), tags.get("p"), tags.get("sp")), (Some("DMARC1"), Some("none"), None));
        assert_eq!(tags.first_name(), Some("v"));
        assert_eq!(
            tags.with("p", "reject").with("sp", "none").to_string(),
            "v=DMARC1; p=reject; rua=mailto:a@b.test; sp=none"
        );
        assert_eq!(Tags::parse("h=sha1 : sha256").unwrap().list("h").unwrap(), ["sha1", "sha256"]);
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for (text, problem) in [
            ("", "\"\" is no tag"),
            ("hello", "\"hello\" is no tag"),
            ("v=DKIM1;; p=", "\"\" is no tag"),
            ("v=DKIM1; p=a; P=b", "p= stands twice"),
            ("v-=1", "is no name"),
        ] {
            let error = Tags::parse(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
