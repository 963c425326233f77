"""Records: the JSON files that say what a cache holds, each parsed into a type (FORMAT.md 2).

fields   a JSON object's fields by type, one error for all that is wrong
names    what may be part of a path
record   reading and writing a record: canonical form, version, digest
stored   files and arrays of a commit record
table    table.json, specs
shard    commit records, seal, withdrawals
split    commit records of examples
"""
