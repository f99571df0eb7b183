//! Python pickles, read as data: nothing in them is imported, called or executed.
//!
//! A pickle is a program for a stack machine ([`machine`]). Python's own reader imports the
//! classes that it names and calls them, so that a pickle can run anything. This reader only
//! notes that an object of a class was made from such arguments and such a state. The classes are
//! those of an allow-list ([`class`]), and so are the opcodes. All others are refused by name.
//!
//! The result is a graph: objects lie in one list, and values refer to them by number. Texts and
//! bytes stay in the file and are ranges of it. So every opcode costs a bounded number of bytes,
//! and the memory is in proportion to the file. Objects may be shared, or contain themselves:
//! [`json`] spells a value out, within limits of depth and size.

mod class;
pub(super) mod json;
mod machine;
mod opcode;
mod scalar;

pub(super) use class::PythonClass;

use std::fmt;

/// A value on the machine's stack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PickleValue {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// UTF-8, not yet checked.
    Text(Span),
    Bytes(Span),
    /// An integer of more than 64 bits: two's complement, little-endian.
    Long(Span),
    /// An integer of more than 64 bits: decimal digits, with `-` in front if it is negative.
    Digits(Span),
    Class(PythonClass),
    /// The number of an object.
    Object(u32),
}

/// A range of the file, or behind its end of what was decoded from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    start: usize,
    len: u32,
}

/// A value that others may refer to.
#[derive(Debug)]
pub(super) enum PickleObject {
    Tuple(Vec<PickleValue>),
    List(Vec<PickleValue>),
    /// A set or a frozenset, in the order of the file.
    Set(Vec<PickleValue>),
    /// A dict, an OrderedDict or a defaultdict, in the order of the file.
    Dict(Vec<(PickleValue, PickleValue)>),
    /// An object of a class, with the tuple of its arguments and the state that it was given.
    Instance {
        class: PythonClass,
        args: PickleValue,
        state: PickleValue,
    },
}

/// The content of a pickle.
pub(super) struct Pickle {
    bytes: Box<dyn AsRef<[u8]> + Send + Sync>,
    decoded: Vec<u8>,
    objects: Vec<PickleObject>,
    root: PickleValue,
}

impl Pickle {
    /// Reads a pickle of protocol 0 to 5.
    ///
    /// # Errors
    ///
    /// The defect, with the offset of the opcode: an opcode or a class that is not on the
    /// allow-list, or a damaged pickle.
    pub(super) fn read(bytes: Box<dyn AsRef<[u8]> + Send + Sync>) -> Result<Self, String> {
        let (decoded, objects, root) = machine::run((*bytes).as_ref())?;
        Ok(Self { bytes, decoded, objects, root })
    }

    /// The pickled value.
    pub(super) fn root(&self) -> PickleValue {
        self.root
    }

    /// Length of the file, in bytes.
    pub(super) fn n_bytes(&self) -> usize {
        (*self.bytes).as_ref().len()
    }

    /// The object that a value refers to.
    pub(super) fn object(&self, value: PickleValue) -> Option<&PickleObject> {
        match value {
            PickleValue::Object(number) => self.objects.get(number as usize),
            _ => None,
        }
    }

    /// The entries of a dict.
    pub(super) fn dict(&self, value: PickleValue) -> Option<&[(PickleValue, PickleValue)]> {
        match self.object(value)? {
            PickleObject::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items of a tuple.
    pub(super) fn tuple(&self, value: PickleValue) -> Option<&[PickleValue]> {
        match self.object(value)? {
            PickleObject::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The class, the arguments and the state of an instance.
    pub(super) fn instance(&self, value: PickleValue) -> Option<Instance<'_>> {
        match *self.object(value)? {
            PickleObject::Instance { class, args, state } => {
                Some(Instance { class, args: self.tuple(args).unwrap_or_default(), state })
            }
            _ => None,
        }
    }

    /// The text of a value; `None` if it is another type, or not valid UTF-8.
    pub(super) fn text(&self, value: PickleValue) -> Option<&str> {
        match value {
            PickleValue::Text(span) => std::str::from_utf8(self.span(span)).ok(),
            _ => None,
        }
    }

    /// The bytes of a range.
    fn span(&self, span: Span) -> &[u8] {
        span.of((*self.bytes).as_ref(), &self.decoded)
    }

    /// The type of a value in Python's words, for messages: `a str`.
    pub(super) fn kind(&self, value: PickleValue) -> String {
        match value {
            PickleValue::None => "None".to_owned(),
            PickleValue::Bool(_) => "a bool".to_owned(),
            PickleValue::Int(_) | PickleValue::Long(_) | PickleValue::Digits(_) => {
                "an int".to_owned()
            }
            PickleValue::Float(_) => "a float".to_owned(),
            PickleValue::Text(_) => "a str".to_owned(),
            PickleValue::Bytes(_) => "bytes".to_owned(),
            PickleValue::Class(class) => format!("the class {}", class.name()),
            PickleValue::Object(_) => match self.object(value) {
                Some(PickleObject::Tuple(_)) => "a tuple".to_owned(),
                Some(PickleObject::List(_)) => "a list".to_owned(),
                Some(PickleObject::Set(_)) => "a set".to_owned(),
                Some(PickleObject::Dict(_)) => "a dict".to_owned(),
                Some(PickleObject::Instance { class, .. }) => format!("a {}", class.name()),
                None => "an unknown object".to_owned(),
            },
        }
    }
}

impl fmt::Debug for Pickle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pickle").field("objects", &self.objects.len()).finish_non_exhaustive()
    }
}

/// An object of a class.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instance<'a> {
    pub(super) class: PythonClass,
    pub(super) args: &'a [PickleValue],
    pub(super) state: PickleValue,
}

impl Span {
    fn of<'a>(self, bytes: &'a [u8], decoded: &'a [u8]) -> &'a [u8] {
        let (from, start) = match self.start.checked_sub(bytes.len()) {
            // An empty range at the very end lies in neither.
            Some(start) => (decoded, start),
            None => (bytes, self.start),
        };
        from.get(start..start.saturating_add(self.len as usize)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
