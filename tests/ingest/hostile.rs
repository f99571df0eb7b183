//! Random bytes in every format.

use proptest::prelude::*;
use warpseek_ingest::{FileFormat, ReadOptions};

use super::{Folder, gzip, memory, read};

const SHORT: [&str; 30] = [
    "{", "}", "[", "]", "\"", ":", ",", "\n", "\r\n", "\"id\":1", "\t", "a,b\n", "\"\"", "---\n",
    "# a\n", "```\n", "<p>", "</p>", "<pre>", "<svg>", "<script>", "<title>", "<!--", "&amp;",
    "&#x", "<li>", "=", "'", "\0", "é",
];
const LONG: [&str; 10] = [
    "\"text\":\"a\"",
    "{\"id\":1,\"text\":\"a\"}\n",
    "text,id\n",
    "title: x\n",
    "</script>",
    "<table><tr><td>",
    "\u{feff}",
    "PAR1",
    "\\u0000",
    "1e9 null",
];

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::sample::select([&SHORT[..], &LONG].concat())
            .prop_map(|piece| piece.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_in_any_format_never_panic(content in pieces(), packed: bool, limit in 1u64..2000) {
        let folder = Folder::new();
        let path = folder.file("d", if packed { gzip(&content) } else { content });
        for format in FileFormat::ALL {
            let options = ReadOptions {
                format: Some(format),
                max_record_bytes: limit,
                ..ReadOptions::default()
            };
            let (all, peak) = memory::peak(|| read(&path, &options));
            prop_assert!(!all.is_empty(), "{format}: neither a document nor an error");
            prop_assert!(peak < 2 << 20, "{format}: {peak} bytes at once");
            for document in all.into_iter().flatten() {
                prop_assert!(!document.text.trim().is_empty() && !document.id.trim().is_empty());
            }
        }
    }

    #[test]
    fn any_damage_to_gzip_never_panics(at in 0usize..10_000, bit in 0u8..8, cut in 0usize..10_000) {
        let lines: String =
            (0..500).map(|n| format!("{{\"id\":{n},\"text\":\"a{n}\"}}\n")).collect();
        let mut content = gzip(lines);
        let length = content.len();
        content[at % length] ^= 1 << bit;
        content.truncate(length - cut % length);
        let folder = Folder::new();
        let path = folder.file("d.jsonl.gz", &content);
        let (all, peak) = memory::peak(|| read(&path, &ReadOptions::default()));
        prop_assert!(!all.is_empty());
        prop_assert!(peak < 2 << 20, "{peak} bytes at once");
    }
}
