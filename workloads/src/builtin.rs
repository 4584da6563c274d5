//! What is embedded in the program: the definitions of models and the recorded traces of this repository.

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
