//! The patterns of LIKE and ILIKE: `%` for any text, `_` for one character.

/// A pattern, divided at its `%`: a text fits if it starts with the first part, ends with the last,
/// and has the others in between, in order.
#[derive(Debug)]
pub(super) enum Pattern {
    /// Parts without `_`, compared with the text as it is.
    Plain(Vec<String>),
    /// Parts of characters; `None` is one of any kind.
    Chars { parts: Vec<Vec<Option<char>>>, ignores_case: bool },
}

impl Pattern {
    /// Reads a pattern. `escape` makes the character behind it an ordinary one.
    pub(super) fn new(pattern: &str, escape: Option<char>, ignores_case: bool) -> Self {
        let mut parts = Vec::new();
        let mut part = Vec::new();
        let mut chars = pattern.chars();
        while let Some(char) = chars.next() {
            match char {
                char if Some(char) == escape => {
                    part.extend(chars.next().into_iter().flat_map(|c| fold(c, ignores_case)));
                }
                '%' => parts.push(std::mem::take(&mut part)),
                '_' => part.push(None),
                char => part.extend(fold(char, ignores_case)),
            }
        }
        parts.push(part);
        let text = |part: &Vec<Option<char>>| part.iter().copied().collect::<Option<String>>();
        match parts.iter().map(text).collect() {
            Some(parts) if !ignores_case => Self::Plain(parts),
            _ => Self::Chars { parts, ignores_case },
        }
    }

    /// The parts between `%`s, if they are compared as they are. SQLite's functions end at a NUL,
    /// so that parts must not have one.
    pub(super) fn plain_parts(&self) -> Option<&[String]> {
        match self {
            Self::Plain(parts) if !parts.iter().any(|part| part.contains('\0')) => Some(parts),
            _ => None,
        }
    }

    /// True if a text fits the pattern.
    pub(super) fn fits(&self, text: &str) -> bool {
        match self {
            Self::Plain(parts) => fits_plain(text, parts),
            Self::Chars { parts, ignores_case } => {
                let text = text.chars().flat_map(|c| fold(c, *ignores_case)).flatten();
                fits_chars(&text.collect::<Vec<_>>(), parts)
            }
        }
    }
}

fn fits_plain(text: &str, parts: &[String]) -> bool {
    let Some((first, others)) = parts.split_first() else { return false };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    let Some((last, middle)) = others.split_last() else { return rest.is_empty() };
    for part in middle {
        // The first place is the best: it leaves the most text to the other parts.
        let Some(at) = rest.find(part.as_str()) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last.as_str())
}

fn fits_chars(text: &[char], parts: &[Vec<Option<char>>]) -> bool {
    let starts = |text: &[char], part: &[Option<char>]| {
        let same = |(have, want): (&char, &Option<char>)| want.is_none_or(|want| want == *have);
        text.len() >= part.len() && text.iter().zip(part).all(same)
    };
    let Some((first, others)) = parts.split_first() else { return false };
    if !starts(text, first) {
        return false;
    }
    let mut rest = &text[first.len()..];
    let Some((last, middle)) = others.split_last() else { return rest.is_empty() };
    for part in middle {
        let places = 0..=rest.len().saturating_sub(part.len());
        let Some(at) = places.into_iter().find(|&i| starts(&rest[i..], part)) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && starts(&rest[rest.len() - last.len()..], last)
}

/// A character, or its lower case.
fn fold(char: char, ignores_case: bool) -> impl Iterator<Item = Option<char>> {
    let lower = ignores_case.then(|| char.to_lowercase());
    let same = (!ignores_case).then_some(char);
    lower.into_iter().flatten().chain(same).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fits(text: &str, pattern: &str) -> bool {
        Pattern::new(pattern, None, false).fits(text)
    }

    #[test]
    fn patterns_fit_whole_texts_and_heed_case_unless_told_not_to() {
        for (text, pattern, expected) in [
            ("NeurIPS 2023", "NeurIPS%", true),
            ("NeurIPS 2023", "neurips%", false),
            ("NeurIPS 2023", "%2023", true),
            ("NeurIPS 2023", "%IPS%0_3", true),
            ("NeurIPS 2023", "NeurIPS", false),
            ("aXbXc", "a%X%c", true),
            ("aXc", "a%X%Xc", false),
            ("", "", true),
            ("", "%", true),
            ("", "_", false),
            ("ab\0c", "ab\0c", true),
            ("ab\0c", "ab_c", true),
            ("ab\0c", "ab", false),
            ("é", "_", true),
        ] {
            assert_eq!(fits(text, pattern), expected, "{text:?} {pattern:?}");
        }
        for (text, pattern) in [("École", "éc%"), ("ÉCOLE", "école"), ("ΣΊΣΥΦΟΣ", "σίσυφοσ")]
        {
            assert!(Pattern::new(pattern, None, true).fits(text), "{text} {pattern}");
            assert!(!fits(text, pattern), "{text} {pattern}");
        }
        let escaped = Pattern::new("100!%!_!!", Some('!'), false);
        assert!(escaped.fits("100%_!") && !escaped.fits("1000_!"));
    }

    /// The definition of LIKE.
    fn plain(text: &[char], pattern: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['%', rest @ ..] => (0..=text.len()).any(|i| plain(&text[i..], rest)),
            [first, rest @ ..] => {
                text.first().is_some_and(|c| *first == '_' || first == c) && plain(&text[1..], rest)
            }
        }
    }

    proptest! {
        #[test]
        fn pattern_fits_as_the_definition_says(text in "[abX]{0,8}", pattern in "[abX%_]{0,7}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(fits(&text, &pattern), plain(&chars(&text), &chars(&pattern)));
        }
    }
}
