//! Instructions and names of a library or program, as binutils tell them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The kinds that are counted, in the order of the table.
pub const KINDS: [&str; 10] = [
    "load", "store", "rmw", "lea", "alu", "cmp", "jcc", "jmp", "call", "stack",
];

/// Kind of an instruction in objdump's Intel syntax.
pub fn kind(text: &str) -> &'static str {
    let (name, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let first = operands.split(',').next().unwrap_or("");
    let in_memory = |operand: &str| operand.contains('[');
    match name {
        "call" => "call",
        "jmp" | "ret" => "jmp",
        "push" | "pop" => "stack",
        "lea" => "lea",
        "cmp" | "test" => "cmp",
        _ if name.starts_with('j') => "jcc",
        _ if name.contains("mov") && in_memory(first) => "store",
        _ if name.contains("mov") && in_memory(operands) => "load",
        _ if in_memory(first) => "rmw",
        // A calculation with an operand in memory is counted as the load that it is.
        _ if in_memory(operands) => "load",
        _ => "alu",
    }
}

pub struct Code {
    pub function: String,
    pub text: String,
}

impl Code {
    /// Takes a lock, or leaves the fast path for a while.
    pub fn is_locked_or_call(&self) -> bool {
        ["lock", "xchg", "call"]
            .iter()
            .any(|name| self.text.starts_with(name))
    }
}

fn told_by(program: &str, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .arg(file)
        .output()
        .unwrap_or_else(|error| panic!("{program} does not run ({error}): install binutils"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Addresses of the exported functions.
pub fn exports(library: &Path) -> BTreeMap<String, u64> {
    names(&told_by("nm", &["-D", "--defined-only"], library))
}

/// Addresses of all functions.
pub fn symbols(program: &Path) -> BTreeMap<String, u64> {
    names(&told_by("nm", &["--defined-only"], program))
}

fn names(told: &str) -> BTreeMap<String, u64> {
    told.lines()
        .filter_map(|line| {
            let (address, rest) = line.split_once(' ')?;
            let name = rest.split_once(' ')?.1;
            Some((name.to_owned(), u64::from_str_radix(address, 16).ok()?))
        })
        .collect()
}

/// The instructions of a file by address.
pub fn disassembly(file: &Path) -> BTreeMap<u64, Code> {
    let text = told_by(
        "objdump",
        &["-d", "--no-show-raw-insn", "-M", "intel"],
        file,
    );
    let mut function = String::new();
    let mut code = BTreeMap::new();
    for line in text.lines() {
        if let Some(symbol) = line
            .strip_suffix(">:")
            .and_then(|line| line.split_once('<'))
        {
            function = symbol.1.to_owned();
        } else if let Some((address, text)) = line.split_once(":\t")
            && let Ok(address) = u64::from_str_radix(address.trim(), 16)
        {
            code.insert(
                address,
                Code {
                    function: function.clone(),
                    text: text.trim().to_owned(),
                },
            );
        }
    }
    code
}

#[test]
fn instructions_are_told_apart() {
    for (text, expected) in [
        ("mov    rax,QWORD PTR [rip+0x10]", "load"),
        ("movzx  edx,BYTE PTR [rax+rdx*1]", "load"),
        ("mov    QWORD PTR [rcx],rdx", "store"),
        ("inc    DWORD PTR [rcx+0x8]", "rmw"),
        ("sub    rax,QWORD PTR [rip+0x10]", "load"),
        ("cmp    rdi,0x401", "cmp"),
        ("jae    51cc <malloc+0x1c>", "jcc"),
        ("jmp    8f20 <slow>", "jmp"),
        ("ret", "jmp"),
        ("shr    rdx,cl", "alu"),
        ("push   rbx", "stack"),
        ("lea    rax,[rip+0x1]", "lea"),
    ] {
        assert_eq!(kind(text), expected, "{text}");
    }
}
