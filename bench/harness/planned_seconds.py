"""How long the parts of a benchmark should take on a GPU machine of the H100's class: guesses, to plan by.

swin3d_t with ALBAR: Dynamo and AOT took 150 to 223 s on two slow cores, and 15,500 nodes are then lowered.
"""

START_SECONDS = 20  # imports, CUDA, the network
VIDEOS_SECONDS = 15  # the synthetic dataset
COMPILE_SECONDS = {  # model, with the penalty
    ("swin3d_t", True): 230,
    ("swin3d_t", False): 70,
    ("r3d_18", True): 60,
    ("r3d_18", False): 25,
}
