//! What was acknowledged is there after the process was killed, the power was cut, the disk failed or rotted; it arrives, and
//! arrives once but for attempts in doubt. `make crash` runs the campaigns at full length; they are short here otherwise.

mod account;
mod dice;
mod faults;
mod flips;
mod hooks;
mod kill;
mod load;
mod power;
mod receiver;
mod restart;
mod scale;
mod subject;
mod table;
mod tools;

pub use table::skip;
