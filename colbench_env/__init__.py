"""ColBench, the benchmark: a human with hidden wishes, an agent that may ask ten times, and a grader.

Text in, text out: nothing here knows of tokens, arrays or devices, and importing it never imports jax.

    types      the rows: Task, Message, Trajectory, Pair, Candidates, Ranked; BadInput
    tasks      reads and writes files of rows (JSON Lines)
    row_file   the same files by row number, without reading them whole
    tfds       the files as the dataset `colbench` of tensorflow_datasets
    dialogue   the protocol of an episode as a state machine
    humans     who answers the agent
    prompts    what the agent and a simulated human are told
    grading    what an answer is worth
    flags      what makes a task doubtful for measuring
    samples    the layout of a file with several samples of each task
    mini       tasks made by a procedure, for tests and demonstrations
"""
