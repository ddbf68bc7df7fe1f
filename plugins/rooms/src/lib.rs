//! placeholder
mod outputs;
