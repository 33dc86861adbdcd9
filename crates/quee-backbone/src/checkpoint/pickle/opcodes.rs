//! Numbers and names of the instructions, as in Python's `pickletools`.

/// A constant for each instruction that is performed, and the names of all others that Python knows.
macro_rules! opcodes {
    ($($name:ident = $value:literal,)* ; $($other:ident = $other_value:literal,)*) => {
        $(pub(super) const $name: u8 = $value;)*

        /// Name of an instruction, or its number.
        pub(super) fn describe(opcode: u8) -> String {
            let name = match opcode {
                $($value => stringify!($name),)*
                $($other_value => stringify!($other),)*
                unknown => return format!("{unknown:#04x}"),
            };
            format!("`{name}`")
        }
    };
}

opcodes! {
    PROTO = 0x80, FRAME = 0x95, STOP = b'.',
    NONE = b'N', NEWTRUE = 0x88, NEWFALSE = 0x89,
    BININT = b'J', BININT1 = b'K', BININT2 = b'M', LONG1 = 0x8a, LONG4 = 0x8b, BINFLOAT = b'G',
    BINUNICODE = b'X', SHORT_BINUNICODE = 0x8c, BINUNICODE8 = 0x8d,
    BINSTRING = b'T', SHORT_BINSTRING = b'U',
    BINBYTES = b'B', SHORT_BINBYTES = b'C', BINBYTES8 = 0x8e, BYTEARRAY8 = 0x96,
    MARK = b'(', POP = b'0', POP_MARK = b'1', DUP = b'2',
    EMPTY_TUPLE = b')', TUPLE = b't', TUPLE1 = 0x85, TUPLE2 = 0x86, TUPLE3 = 0x87,
    EMPTY_LIST = b']', LIST = b'l', APPEND = b'a', APPENDS = b'e',
    EMPTY_DICT = b'}', DICT = b'd', SETITEM = b's', SETITEMS = b'u',
    EMPTY_SET = 0x8f, ADDITEMS = 0x90, FROZENSET = 0x91,
    GLOBAL = b'c', STACK_GLOBAL = 0x93, REDUCE = b'R', BUILD = b'b', NEWOBJ = 0x81, NEWOBJ_EX = 0x92,
    BINPERSID = b'Q',
    BINPUT = b'q', LONG_BINPUT = b'r', MEMOIZE = 0x94, BINGET = b'h', LONG_BINGET = b'j',
    ;
    INT = b'I', LONG = b'L', FLOAT = b'F', STRING = b'S', UNICODE = b'V', GET = b'g', PUT = b'p',
    INST = b'i', OBJ = b'o', PERSID = b'P',
    EXT1 = 0x82, EXT2 = 0x83, EXT4 = 0x84, NEXT_BUFFER = 0x97, READONLY_BUFFER = 0x98,
}
