//! The classes that a pickle may name.

/// A class or function on the allow-list. None is ever imported or called: the name says how the
/// arguments and the state are to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vectors) enum PythonClass {
    /// LangChain's store of documents in memory.
    Docstore,
    /// LangChain's document.
    Document,
    Date,
    DateTime,
    Time,
    TimeDelta,
    TimeZone,
    /// A function without arguments that stands for UTC.
    Utc,
    /// A fixed offset from UTC in seconds.
    Offset,
    Decimal,
    Uuid,
    PosixPath,
    WindowsPath,
    OrderedDict,
    DefaultDict,
    Set,
    FrozenSet,
    Bytes,
    NumpyScalar,
    NumpyDtype,
    /// The function by which protocols 0 to 2 write bytes.
    Encode,
    /// The function by which protocols 0 and 1 make objects.
    Reconstruct,
    /// A built-in class as an argument: the base of objects, or the default of a defaultdict.
    Builtin,
}

/// The place of a class in the messages: module and name.
type ClassName = (&'static str, &'static str);

/// The names of the classes, all that their modules had over the years.
const CLASSES: &[(ClassName, PythonClass)] = {
    use PythonClass as C;
    &[
        (("langchain.docstore.in_memory", "InMemoryDocstore"), C::Docstore),
        (("langchain_community.docstore.in_memory", "InMemoryDocstore"), C::Docstore),
        (("langchain.docstore.document", "Document"), C::Document),
        (("langchain.schema", "Document"), C::Document),
        (("langchain.schema.document", "Document"), C::Document),
        (("langchain_core.documents.base", "Document"), C::Document),
        (("datetime", "date"), C::Date),
        (("datetime", "datetime"), C::DateTime),
        (("datetime", "time"), C::Time),
        (("datetime", "timedelta"), C::TimeDelta),
        (("datetime", "timezone"), C::TimeZone),
        (("pytz", "_UTC"), C::Utc),
        (("dateutil.tz.tz", "tzutc"), C::Utc),
        (("pydantic_core._pydantic_core", "TzInfo"), C::Offset),
        (("decimal", "Decimal"), C::Decimal),
        (("uuid", "UUID"), C::Uuid),
        (("pathlib", "PosixPath"), C::PosixPath),
        (("pathlib", "PurePosixPath"), C::PosixPath),
        (("pathlib", "WindowsPath"), C::WindowsPath),
        (("pathlib", "PureWindowsPath"), C::WindowsPath),
        (("pathlib._local", "PosixPath"), C::PosixPath),
        (("pathlib._local", "PurePosixPath"), C::PosixPath),
        (("pathlib._local", "WindowsPath"), C::WindowsPath),
        (("pathlib._local", "PureWindowsPath"), C::WindowsPath),
        (("collections", "OrderedDict"), C::OrderedDict),
        (("collections", "defaultdict"), C::DefaultDict),
        (("numpy.core.multiarray", "scalar"), C::NumpyScalar),
        (("numpy._core.multiarray", "scalar"), C::NumpyScalar),
        (("numpy", "dtype"), C::NumpyDtype),
        (("_codecs", "encode"), C::Encode),
        (("copyreg", "_reconstructor"), C::Reconstruct),
        (("copy_reg", "_reconstructor"), C::Reconstruct),
        (("builtins", "set"), C::Set),
        (("builtins", "frozenset"), C::FrozenSet),
        (("builtins", "bytes"), C::Bytes),
        (("builtins", "bytearray"), C::Bytes),
        (("builtins", "object"), C::Builtin),
        (("builtins", "list"), C::Builtin),
        (("builtins", "dict"), C::Builtin),
        (("builtins", "tuple"), C::Builtin),
        (("builtins", "str"), C::Builtin),
        (("builtins", "int"), C::Builtin),
        (("builtins", "long"), C::Builtin),
        (("builtins", "unicode"), C::Builtin),
        (("builtins", "float"), C::Builtin),
        (("builtins", "bool"), C::Builtin),
    ]
};

impl PythonClass {
    /// The class of a name; `None` if it is not on the list.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        // Protocols 0 to 2 use the names of Python 2, `long` for int and `unicode` for str too.
        let module = if module == "__builtin__" { "builtins" } else { module };
        CLASSES.iter().find(|(own, _)| *own == (module, name)).map(|(_, class)| *class)
    }

    /// One of the class's names, for messages.
    pub(super) fn name(self) -> String {
        let found = CLASSES.iter().rev().find(|(_, class)| *class == self);
        found.map_or_else(String::new, |((module, name), _)| format!("{module}.{name}"))
    }

    /// True if objects of the class are made without arguments and then get a state.
    pub(super) fn has_state(self) -> bool {
        matches!(self, Self::Docstore | Self::Document | Self::Uuid)
    }

    /// True if objects of the class are made of arguments.
    pub(super) fn takes_args(self) -> bool {
        !self.has_state() && !matches!(self, Self::Reconstruct | Self::Builtin)
    }
}
