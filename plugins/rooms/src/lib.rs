//! placeholder
mod outputs;
mod notebook_file;
mod records;
