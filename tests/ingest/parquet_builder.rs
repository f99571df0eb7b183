//! Parquet files assembled by hand, byte by byte.

/// A writer of Thrift's compact protocol.
#[derive(Default)]
pub(super) struct Thrift {
    bytes: Vec<u8>,
    last: i16,
}

impl Thrift {
    pub(super) fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    pub(super) fn zigzag(value: i64) -> Vec<u8> {
        Self::varint(((value << 1) ^ (value >> 63)) as u64)
    }

    pub(super) fn field(mut self, id: i16, kind: u8, value: impl AsRef<[u8]>) -> Self {
        self.bytes.push((((id - self.last) as u8) << 4) | kind);
        self.bytes.extend(value.as_ref());
        self.last = id;
        self
    }

    /// A field that is there already.
    pub(super) fn again(mut self, id: i16, kind: u8, value: impl AsRef<[u8]>) -> Self {
        self.bytes.push(kind);
        self.bytes.extend(Self::zigzag(id.into()));
        self.bytes.extend(value.as_ref());
        self
    }

    pub(super) fn i32(self, id: i16, value: i64) -> Self {
        self.field(id, 5, Self::zigzag(value))
    }

    pub(super) fn i64(self, id: i16, value: i64) -> Self {
        self.field(id, 6, Self::zigzag(value))
    }

    pub(super) fn text(self, id: i16, value: &str) -> Self {
        self.field(id, 8, [Self::varint(value.len() as u64), value.as_bytes().to_vec()].concat())
    }

    pub(super) fn structure(self, id: i16, value: Self) -> Self {
        self.field(id, 12, value.end())
    }

    pub(super) fn list(self, id: i16, kind: u8, items: &[Vec<u8>]) -> Self {
        let head = [vec![0xf0 | kind], Self::varint(items.len() as u64)].concat();
        self.field(id, 9, [head, items.concat()].concat())
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

pub(super) const BYTE_ARRAY: i64 = 6;
pub(super) const INT32: i64 = 1;
pub(super) const REQUIRED: i64 = 0;
pub(super) const OPTIONAL: i64 = 1;
pub(super) const REPEATED: i64 = 2;
pub(super) const GZIP: i64 = 2;
pub(super) const PLAIN: i64 = 0;
pub(super) const RLE: i64 = 3;
pub(super) const DELTA_LENGTH: i64 = 6;
pub(super) const DELTA_BYTE_ARRAY: i64 = 7;
pub(super) const DICTIONARY: i64 = 8;

/// A column with one chunk, whose pages are as they stand in the file.
pub(super) struct TestColumn {
    pub(super) name: &'static str,
    pub(super) kind: i64,
    pub(super) repetition: i64,
    pub(super) codec: i64,
    pub(super) pages: Vec<u8>,
    pub(super) has_dictionary: bool,
}

/// A required text column with these pages.
pub(super) fn column(pages: Vec<u8>) -> TestColumn {
    let (name, kind, repetition) = ("text", BYTE_ARRAY, REQUIRED);
    TestColumn { name, kind, repetition, codec: 0, pages, has_dictionary: false }
}

/// A required text column with these rows.
pub(super) fn texts(values: &[&[u8]]) -> TestColumn {
    column(page(values.len() as i64, PLAIN, &plain(values)))
}

/// A repeated column of integers with these pages.
pub(super) fn list(pages: Vec<u8>) -> TestColumn {
    TestColumn { name: "list", kind: INT32, repetition: REPEATED, ..column(pages) }
}

/// A data page.
pub(super) fn page(values: i64, encoding: i64, body: &[u8]) -> Vec<u8> {
    let size = body.len() as i64;
    let header = sizes(size, size).structure(5, data(values, encoding));
    [header.end(), body.to_vec()].concat()
}

/// The start of a page header: a data page and its sizes, uncompressed and compressed.
pub(super) fn sizes(unpacked: i64, packed: i64) -> Thrift {
    Thrift::default().i32(1, 0).i32(2, unpacked).i32(3, packed)
}

pub(super) fn data(values: i64, encoding: i64) -> Thrift {
    Thrift::default().i32(1, values).i32(2, encoding).i32(3, RLE).i32(4, RLE)
}

/// A dictionary page.
pub(super) fn dictionary(values: i64, body: &[u8]) -> Vec<u8> {
    let size = body.len() as i64;
    let header = Thrift::default().i32(1, 2).i32(2, size).i32(3, size);
    let header = header.structure(7, Thrift::default().i32(1, values).i32(2, PLAIN));
    [header.end(), body.to_vec()].concat()
}

/// Levels with their length in front.
pub(super) fn levels(runs: &[u8]) -> Vec<u8> {
    [&(runs.len() as u32).to_le_bytes()[..], runs].concat()
}

pub(super) fn plain(values: &[&[u8]]) -> Vec<u8> {
    values.iter().flat_map(|v| [&(v.len() as u32).to_le_bytes()[..], v].concat()).collect()
}

pub(super) fn file(rows: i64, chunks: &[TestColumn]) -> Vec<u8> {
    let mut bytes = b"PAR1".to_vec();
    let root = Thrift::default().text(4, "m").i32(5, chunks.len() as i64);
    let mut schema = vec![root.end()];
    let mut columns = Vec::new();
    for chunk in chunks {
        let element = Thrift::default().i32(1, chunk.kind).i32(3, chunk.repetition);
        schema.push(element.text(4, chunk.name).end());
        let (start, size) = (bytes.len() as i64, chunk.pages.len() as i64);
        bytes.extend(&chunk.pages);
        let name = chunk.name.as_bytes().to_vec();
        let path = [Thrift::varint(name.len() as u64), name].concat();
        let meta = Thrift::default().i32(1, chunk.kind).list(2, 5, &[Thrift::zigzag(PLAIN)]);
        let meta = meta.list(3, 8, &[path]).i32(4, chunk.codec).i64(5, rows);
        let mut meta = meta.i64(6, size).i64(7, size).i64(9, start);
        if chunk.has_dictionary {
            meta = meta.i64(11, start);
        }
        columns.push(Thrift::default().i64(2, start).structure(3, meta).end());
    }
    let group = Thrift::default().list(1, 12, &columns).i64(2, 100).i64(3, rows);
    let footer = Thrift::default().i32(1, 1).list(2, 12, &schema).i64(3, rows);
    with_footer(bytes, &footer.list(4, 12, &[group.end()]).end())
}

pub(super) fn with_footer(mut bytes: Vec<u8>, footer: &[u8]) -> Vec<u8> {
    bytes.extend(footer);
    bytes.extend((footer.len() as u32).to_le_bytes());
    bytes.extend(b"PAR1");
    bytes
}
