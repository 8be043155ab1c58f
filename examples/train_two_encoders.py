"""Train two encoders with InfoNCE: two captions of each image are not negatives of each other."""

import torch

import modalign

torch.manual_seed(0)
concepts = torch.randn(256, 16)
images = (concepts @ torch.randn(16, 64)).repeat_interleave(2, 0)
captions = concepts.repeat_interleave(2, 0) @ torch.randn(16, 48) + 0.5 * torch.randn(512, 48)
image_of = torch.arange(512) // 2

image_encoder = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 32))
text_encoder = torch.nn.Sequential(torch.nn.Linear(48, 64), torch.nn.GELU(), torch.nn.Linear(64, 32))
criterion = modalign.InfoNCE(learnable=True)
parameters = [*image_encoder.parameters(), *text_encoder.parameters(), *criterion.parameters()]
optimizer = torch.optim.AdamW(parameters, lr=3e-3)

for step in range(60):
    loss = criterion(image_encoder(images), text_encoder(captions), groups=image_of)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step}: loss {loss.item():.2f}")

with torch.no_grad():
    embeddings = image_encoder(images), text_encoder(captions)
    loss, stats = modalign.info_nce(*embeddings, groups=image_of, stats=True)
print(f"after training: loss {loss.item():.2f}, {stats.x_accuracy.item():.0%} of the images find a caption of theirs")
