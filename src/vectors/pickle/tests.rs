//! Tests of the pickle reader: opcodes, limits, refusals.

use super::*;

fn read(bytes: &[u8]) -> Result<Pickle, String> {
    Pickle::read(Box::new(bytes.to_vec()))
}

#[track_caller]
fn refused(bytes: &[u8], parts: &[&str]) {
    let error = read(bytes).expect_err("an error");
    for part in parts {
        assert!(error.contains(part), "no '{part}' in: {error}");
    }
}

#[test]
fn opcodes_off_the_list_are_refused_by_name_and_position() {
    let cases: [(&[u8], &str); 14] = [
        (b"S'x'\n.", "STRING, a text of Python 2, at byte 0"),
        (b"NT\x01\x00\x00\x00x.", "BINSTRING, a text of Python 2, at byte 1"),
        (b"U\x01x.", "SHORT_BINSTRING"),
        (b"P1\n.", "PERSID, a reference to something outside of the file, at byte 0"),
        (b"NQ.", "BINPERSID"),
        (b"\x82\x01.", "EXT1, a class of a private registry, at byte 0"),
        (b"\x83\x01\x00.", "EXT2"),
        (b"\x84\x01\x00\x00\x00.", "EXT4"),
        (b"(icollections\nCounter\n.", "INST at byte 1"),
        (b"(o.", "OBJ at byte 1"),
        (b"N)}\x92.", "NEWOBJ_EX at byte 3"),
        (b"\x97.", "NEXT_BUFFER, a buffer outside of the file, at byte 0"),
        (b"N\x98.", "READONLY_BUFFER"),
        (b"\xff.", "0xff at byte 0"),
    ];
    for (bytes, part) in cases {
        refused(bytes, &[part, "not one that LangChain's stores have"]);
    }
}

#[test]
fn damage_is_told_by_opcode_and_position() {
    let cases: [(&[u8], &[&str]); 21] = [
        (b"", &["cut off"]),
        (b"N", &["cut off", "no end"]),
        (b"N.N", &["1 bytes follow the end"]),
        (b"NN.", &["STOP at byte 2", "left on the stack"]),
        (b".", &["STOP at byte 0", "the stack is empty"]),
        (b"\x80\x06N.", &["protocol 6"]),
        (b"\x95\xff\x00\x00\x00\x00\x00\x00\x00N.", &["cut off inside a frame"]),
        (b"X\xff\xff\xff\xffx.", &["cut off inside BINUNICODE"]),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", &["BINUNICODE8 at byte 0", "4 GiB"]),
        (b"t.", &["TUPLE at byte 0", "no mark"]),
        (b"N(\x85.", &["TUPLE1 at byte 2", "the stack is empty"]),
        (b"}(Nu.", &["SETITEMS at byte 3", "a key without a value"]),
        (b"]NNs.", &["SETITEM at byte 3", "of another type"]),
        (b"}Na.", &["APPEND at byte 2", "of another type"]),
        (b"h\x07.", &["BINGET at byte 0", "remembered"]),
        (b"gx\n.", &["GET at byte 0", "remembered"]),
        (b"Nr\xff\xff\xff\xff.", &["LONG_BINPUT at byte 1", "in sequence"]),
        (b"Nb.", &["BUILD at byte 1", "the stack is empty"]),
        (b"NNb.", &["BUILD at byte 2", "takes no state"]),
        (b"N)R.", &["REDUCE at byte 2", "not a class"]),
        (b"I1x\n.", &["INT at byte 0", "an integer that is not written as one"]),
    ];
    for (bytes, parts) in cases {
        refused(bytes, parts);
    }
    refused(b"cbuiltins\nlist\n)R.", &["REDUCE", "builtins", "not known"]);
    refused(b"cdatetime\ndate\n)\x81.", &["NEWOBJ", "datetime.date with 0 arguments"]);
    refused(b"ccollections\nOrderedDict\n]\x85R.", &["collections.OrderedDict with 1 arguments"]);
    refused(b"V\\uzzzz\n.", &["UNICODE at byte 0", "escape"]);
    refused(b"V\\U00110000\n.", &["UNICODE at byte 0", "escape"]);
}

#[test]
fn stack_and_marks_are_limited() {
    refused(&[b'('; 2000], &["MARK at byte 1024", "nested"]);
    refused(&vec![b'N'; 3 << 20], &["NONE at byte 1048576", "on the stack"]);
}

#[test]
fn values_lie_on_the_stack_in_order() {
    let pickle = read(b"(K\x01N2\x88t.").expect("a tuple");
    let items = pickle.tuple(pickle.root()).expect("a tuple");
    let expected =
        [PickleValue::Int(1), PickleValue::None, PickleValue::None, PickleValue::Bool(true)];
    assert_eq!(items, expected);
    // Marks and values that are popped again.
    let pickle = read(b"(K\x01(NN10t.").expect("a tuple");
    assert_eq!(pickle.tuple(pickle.root()), Some(&[][..]));
    let pickle = read(b"((0K\x05t.").expect("a tuple");
    assert_eq!(pickle.tuple(pickle.root()), Some(&[PickleValue::Int(5)][..]));
}
