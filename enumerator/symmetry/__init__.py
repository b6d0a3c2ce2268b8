"""Permutations of students and teachers: Aut(T), canonical forms, isotropy groups, and copies of one network told."""
