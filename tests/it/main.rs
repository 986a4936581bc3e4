//! What users of Tidegate touch, driven from outside: sockets, files, the admin API and the command line.
