"""`launch.data convert`: rows from files of other tools, and files for other tools from rows.

convert_file       the path through a file: read, convert, write, all of it or nothing
place              where a record stands, and what it is read with
formats            the table of formats: which kinds each holds, its reader and its writer
dialogue           a trajectory as chat formats hold it: messages, and beside them what only our rows have
chat_messages      lists of messages, in either spelling
messages           OpenAI's `messages`
sharegpt           ShareGPT's `conversations`
verifiers          traces.jsonl of verifiers 0.4
verifiers_results  results.jsonl of verifiers 0.1
openenv            results.jsonl of `openenv collect`
trl                TRL's preference columns
pair_text          the text of a pair as messages, and what the chat template wrote between them
sources            records of JSON Lines, of Parquet files and of saved datasets
splits             which files of a directory are read
parquet            JSON objects as Parquet and Arrow, and back
"""
