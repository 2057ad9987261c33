"""What `launch.data check` does with a file of rows.

config      what it can be told
kinds       which kind of row a file holds, and what is asked of a row beyond its types
survey      collects the facts of the rows while they pass
references  runs the references of the tasks in the grader's sandbox
facts       the facts, as JSON has them
text        the facts, as a person reads them
check       the path through a file: reads, surveys, runs
"""
