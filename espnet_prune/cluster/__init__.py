"""Commands run on this machine, by Slurm or by Grid Engine, with the interface of Kaldi's scripts.

``utils/submit.py`` is the program. A submission has a folder beside its log, in which every task
leaves files that appear whole: the scheduler is asked where a task is, the files say how it ended.
"""
