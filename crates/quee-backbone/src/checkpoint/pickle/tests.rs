use proptest::prelude::*;

use super::*;
use crate::checkpoint::source::Source;

/// Reads a pickle from memory.
fn read(bytes: &[u8]) -> Result<(Heap, Value), CheckpointError> {
    let source = Source::memory(bytes, "test");
    load(&mut Input::new(&source, 0, source.length(), "the file"), 6)
}

fn message(bytes: &[u8]) -> String {
    read(bytes).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn dictionaries_lists_numbers_and_texts() {
    // pickle.dumps({"a": [1, 300, -70000, 1 << 40, True, None, 1.5], "é": ("x",)}, 2)
    let bytes =
        b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01M,\x01J\x90\xee\xfe\xff\x8a\x06\x00\x00\x00\x00\x00\x01\
        \x88NG?\xf8\x00\x00\x00\x00\x00\x00eX\x02\x00\x00\x00\xc3\xa9q\x03X\x01\x00\x00\x00xq\x04\x85q\x05u.";
    let (heap, root) = read(bytes).unwrap();
    let pairs = heap.pairs(root).unwrap();
    assert_eq!(heap.text(pairs[0].0), Some("a"));
    assert_eq!(heap.text(pairs[1].0), Some("é"));
    let numbers: Vec<i64> = heap.items(pairs[0].1).unwrap()[..4]
        .iter()
        .map(|value| match value {
            Value::Int(n) => *n,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(numbers, [1, 300, -70000, 1 << 40]);
    assert!(matches!(heap.items(pairs[0].1).unwrap()[4..], [Value::Bool(true), Value::None, Value::Float]));
    assert_eq!(heap.text(heap.items(pairs[1].1).unwrap()[0]), Some("x"));
}

#[test]
fn a_list_that_contains_itself_does_no_harm() {
    let (heap, root) = read(b"\x80\x02]q\x00h\x00a.").unwrap();
    assert!(matches!((heap.items(root).unwrap(), root), ([Value::Node(inner)], Value::Node(outer)) if *inner == outer));
}

#[test]
fn globals_are_refused_by_name_and_place() {
    for (bytes, name) in [
        (&b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R."[..], "posix.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "builtins.eval"),
        (b"\x80\x02c\x1b[2J\nx\n.", "\\u{1b}[2J.x"),
    ] {
        let text = message(bytes);
        assert!(text.contains(&format!("`{name}`")) && text.contains("byte") && text.contains("hint"), "{text}");
    }
    assert!(message(b"\x80\x02cposix\nsystem\n.").contains("at byte 2 of the file"));
}

#[test]
fn instructions_are_refused_by_name_or_number() {
    assert!(message(b"\x80\x02(S'x'\n.").contains("`STRING` at byte 3"));
    assert!(message(b"\x80\x02(iposix\nsystem\n.").contains("`INST`"));
    assert!(message(b"\x80\x02\xff.").contains("0xff"));
    assert!(message(b"\x80\x02\x82\x01.").contains("`EXT1`"));
    assert!(message(b"\x80\x01.").contains("protocol 1"));
}

#[test]
fn nonsense_is_an_error() {
    for bytes in [
        &b"\x80\x02"[..],
        b"\x80\x02.",
        b"\x80\x02t.",
        b"\x80\x02u.",
        b"\x80\x02h\x00.",
        b"\x80\x02)R.",
        b"\x80\x02N)R.",
        b"\x80\x02Nq\x00(s.",
        b"\x80\x02}(Nu.",
        b"\x80\x02}Na.",
        b"\x80\x02X\xff\xff\xff\xffa.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
        b"\x80\x02Nr\xff\xff\xff\xff.",
        b"\x80\x02(K\x01\x86.",
        b"\x80\x02]Q.",
        b"\x80\x02X\x01\x00\x00\x00\xff.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02]}b.",
    ] {
        assert!(matches!(read(bytes), Err(CheckpointError::Pickle { .. })), "{bytes:?}: {:?}", read(bytes).err());
    }
}

#[test]
fn values_are_bounded() {
    let mut many = b"\x80\x02".to_vec();
    many.extend(b"}".repeat(100_000));
    assert!(message(&many).contains("many times the file's size"));
    // A list that is added to itself doubles every time.
    let mut doubling = b"\x80\x02]q\x00(N".to_vec();
    doubling.extend(b"h\x00e".repeat(3));
    assert!(read(&doubling).is_err());
    let nested = [&b"\x80\x02"[..], &b"(".repeat(500), &b"t".repeat(500), b"."].concat();
    assert!(read(&nested).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_give_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&[b"\x80\x02", &bytes[..]].concat());
    }

    /// Instructions that fit together better than arbitrary bytes.
    #[test]
    fn any_instructions_give_a_value_or_an_error(
        parts in prop::collection::vec(prop::sample::select(vec![
            &b"("[..], b"N", b"K\x01", b"K\x07", b"J\xff\xff\xff\xff", b"]", b"}", b")", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u",
            b"l", b"d", b"0", b"1", b"2", b"R", b"b", b"\x81", b"\x92", b"Q", b"q\x00", b"h\x00", b"q\x01", b"h\x01", b"\x94",
            b"X\x07\x00\x00\x00storage", b"X\x01\x00\x00\x000", b"X\x03\x00\x00\x00cpu", b"ctorch\nFloatStorage\n",
            b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_tensor_v3\n", b"ctorch._utils\n_rebuild_parameter\n",
            b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch\nSize\n", b"ccollections\nOrderedDict\n", b"cargparse\nNamespace\n",
            b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x07tQ",
        ]), 0..60),
    ) {
        let _ = read(&[b"\x80\x02", &parts.concat()[..], b"."].concat());
    }
}
