"""The body of `launch.data`.

check_file      the path through a file: its form, its rows, the references of its tasks
config          flags
row_kinds       which kind of row a file holds, and what makes a row defective
row_statistics  collects statistics of the rows while they are read
run_references  runs the references of the tasks in the grader's sandbox
report_data     everything that was found, as `--json` prints it
report_text     the same as text
convert         `launch.data convert`: files of other tools
fetch_assets    `launch.data assets`
"""
